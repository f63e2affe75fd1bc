//! Locks mutexes whose data stays consistent when a holder panics.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks a mutex even if a thread panicked while holding it.
///
/// Use it only for data that is valid after each statement of every critical section. For such data, poisoning would only
/// make every later call fail too.
pub trait MutexExt<T: ?Sized> {
    /// Blocks until the lock is free, and ignores poison.
    fn lock_ignoring_poison(&self) -> MutexGuard<'_, T>;
}

impl<T: ?Sized> MutexExt<T> for Mutex<T> {
    #[inline]
    fn lock_ignoring_poison(&self) -> MutexGuard<'_, T> {
        self.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn a_poisoned_mutex_can_be_locked() {
        let mutex = Arc::new(Mutex::new(7));
        let clone = Arc::clone(&mutex);
        let poisoned = std::thread::spawn(move || {
            let _guard = clone.lock().unwrap();
            panic!("poisons the mutex");
        });
        assert!(poisoned.join().is_err() && mutex.is_poisoned());
        assert_eq!(*mutex.lock_ignoring_poison(), 7);
    }
}
