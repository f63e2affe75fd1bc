//! The budget of request bodies in progress, and the owners that share it.
//!
//! * [`Bodies::reserve`] bounds the bytes of bodies, for the process and for each owner.
//! * [`BodyReservation::wait`] bounds the requests whose bodies have not arrived completely. A client that sends no
//!   body after its head would otherwise hold a connection to the gateway, of which nginx opens a bounded number.

use linnet_domain::UserId;
use linnet_platform::{
    byte_budget::{BudgetExceeded, ByteBudget, Reservation},
    client_network::ClientNetwork,
    slot_pool::{Slot, SlotPool, SlotRefusal},
};

/// The charge of a streamed body, in bytes: the chunks between client and shortener, with the buffers
/// of both connections.
pub(crate) const STREAM_BYTES: usize = 64 * 1_024;

/// One owner can take the budget divided by this.
const SHARE: usize = 8;
/// The part of all connections whose requests may wait for bodies is the number of connections divided by this.
const WAITING_PART: usize = 2;
/// One owner can have the waiting requests of the process divided by this. Bodies of honest clients follow their heads
/// at once, so few of a user's requests wait.
const WAITING_SHARE: usize = 16;
/// At least so many requests of an owner may wait.
const LEAST_WAITING: usize = 2;

/// The owner to which request bodies are charged.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum BodyOwner {
    /// All keys of one user.
    User(UserId),
    /// Clients without a key in one network; `None` if the address is unknown.
    Network(Option<ClientNetwork>),
}

/// The bodies in progress; clones share the bounds.
#[derive(Debug, Clone)]
pub(crate) struct Bodies {
    bytes: ByteBudget<BodyOwner>,
    waiting: SlotPool<BodyOwner>,
}

impl Bodies {
    /// The bounds of a process with this many bytes for bodies, and this many connections.
    pub(crate) fn new(bytes: usize, connections: usize) -> Self {
        let waiting = (connections / WAITING_PART).max(LEAST_WAITING);
        let share = (waiting / WAITING_SHARE).max(LEAST_WAITING);
        Self {
            bytes: ByteBudget::new(bytes, bytes / SHARE),
            waiting: SlotPool::new(waiting, share),
        }
    }

    /// An empty reservation for the body of one request.
    pub(crate) fn reserve(&self, owner: BodyOwner) -> BodyReservation {
        let bytes = self.bytes.reserve(owner.clone());
        BodyReservation { bytes, waiting: self.waiting.clone(), owner }
    }
}

/// The bytes that the body of one request holds, until it is dropped.
#[derive(Debug)]
pub(crate) struct BodyReservation {
    bytes: Reservation<BodyOwner>,
    waiting: SlotPool<BodyOwner>,
    owner: BodyOwner,
}

impl BodyReservation {
    /// Adds bytes that have arrived. On an error, nothing is added.
    pub(crate) fn grow(&mut self, bytes: usize) -> Result<(), BudgetExceeded> {
        self.bytes.grow(bytes)
    }

    /// Takes a slot for the time in which the body is incomplete.
    pub(crate) fn wait(&self) -> Result<Slot<BodyOwner>, SlotRefusal> {
        self.waiting.take(self.owner.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn must_26_an_owner_takes_an_eighth_of_the_budget() {
        let bodies = Bodies::new(800, 208);
        let mut user = bodies.reserve(BodyOwner::User(UserId::MIN));
        assert_eq!(user.grow(101), Err(BudgetExceeded::Owner));
        assert_eq!(user.grow(100), Ok(()));
        let mut network = bodies.reserve(BodyOwner::Network(None));
        assert_eq!(network.grow(100), Ok(()));
        assert_eq!(STREAM_BYTES, 65_536);
    }

    #[test]
    fn must_26_requests_that_wait_for_bodies_leave_connections_to_other_owners() {
        let bodies = Bodies::new(800, 208);
        let wait = |id: i64| bodies.reserve(BodyOwner::User(UserId::new(id).unwrap())).wait();
        let mut held: Vec<_> = (0..6).map(|_| wait(1).unwrap()).collect();
        assert_eq!(wait(1).unwrap_err(), SlotRefusal::Share { share: 6 });
        held.extend((2..=17).flat_map(|id| (0..6).map(move |_| id)).map(|id| wait(id).unwrap()));
        held.extend([wait(18).unwrap(), wait(18).unwrap()]);
        assert_eq!(wait(19).unwrap_err(), SlotRefusal::All, "half of the connections");
        held.clear();
        assert!(wait(1).is_ok());
    }
}
