//! The lease of a job: two workers, three chunks, and every order of their steps.
//!
//! It mirrors `crates/store/src/jobs/attempts.rs` (`claim_job`, `end_attempt`, `release_job`), `chunks.rs`
//! (`begin_chunk`, `commit`) and the decisions of `crates/jobs/src/run.rs` (`write`, `write_in_time`). A worker may
//! freeze before any of its steps, because no step is forced.
//!
//! Each kind of fault has a budget, so every path ends. A path that ends while its job is unfinished is a violation.

use stateright::{Model, Property};

/// Workers.
pub const WORKERS: usize = 2;
/// Chunks of the job.
pub const CHUNKS: u8 = 3;
/// Attempts without progress after which the job is dead.
pub const MAX_ATTEMPTS: u8 = 2;

/// A rule that a variant of the protocol lacks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mistake {
    /// A chunk begins without checking that the job still belongs to the worker.
    ChunkIgnoresTheLease,
    /// A chunk is committed without the row's lock, by a worker that checked the lease before.
    ChunkWithoutLock,
    /// The rows are committed before the position.
    PositionAfterRows,
    /// A worker that got no response to a commit writes the chunk again without comparing positions.
    RetryIgnoresThePosition,
    /// Another worker claims the job before its lease has expired.
    ClaimIgnoresTheLease,
    /// A job whose lease has expired is never claimed again.
    ExpiredJobIsNotClaimed,
}

/// A bound on faults, so that the number of states is finite.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Budget {
    /// Leases that expire.
    pub expiries: u8,
    /// Commits whose response is lost.
    pub lost_responses: u8,
    /// Attempts that fail, transactions that are aborted, and processes that stop.
    pub failures: u8,
}

/// The state of the row in `jobs`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum JobState {
    /// Waits for a worker.
    Queued,
    /// Belongs to a worker.
    Running,
    /// All chunks are written.
    Succeeded,
    /// A dead letter.
    Dead,
    /// Cancelled by its owner.
    Cancelled,
}

/// The step that a worker has reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Worker {
    /// Has no job.
    Idle,
    /// Has claimed the job, and is about to begin the chunk with this number.
    HasChunk(u8),
    /// Holds the row's lock in the transaction of this chunk.
    InTransaction(u8),
    /// Only with [`Mistake::PositionAfterRows`]: has committed the rows of this chunk, but not the position.
    RowsCommitted(u8),
}

/// The state of the job and of all workers.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct State {
    /// The row's state.
    pub job: JobState,
    /// The row's worker.
    pub owner: Option<usize>,
    /// Whether `lease_until` has passed.
    pub is_expired: bool,
    /// Number of chunks that are written, according to the row.
    pub position: u8,
    /// Attempts since the last progress.
    pub attempts: u8,
    /// How often the rows of each chunk were committed.
    pub written: [u8; CHUNKS as usize],
    /// The workers.
    pub workers: [Worker; WORKERS],
    /// Faults that are left.
    pub budget: Budget,
    /// Whether a worker that had lost the job committed rows.
    pub was_written_without_lease: bool,
}

/// A step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Action {
    /// A worker claims the job.
    Claim(usize),
    /// A worker begins its chunk: locks the row if the job is still its own.
    Begin(usize),
    /// A worker commits its chunk.
    Commit(usize),
    /// The same, but the response is lost, so the worker tries the chunk again.
    CommitWithoutResponse(usize),
    /// A worker's transaction is aborted, because its connection broke or it was idle for too long.
    Abort(usize),
    /// Only with [`Mistake::PositionAfterRows`]: a worker commits the position after the rows.
    CommitPosition(usize),
    /// A worker's attempt fails. The job is retried or dead.
    Fail(usize),
    /// A worker's process stops and releases the job.
    Release(usize),
    /// A worker's process dies.
    Die(usize),
    /// The lease expires.
    Expire,
    /// The owner cancels the job.
    Cancel,
}

/// The protocol, or a variant with a mistake.
#[derive(Debug, Clone)]
pub struct Leases {
    /// The rule that is missing.
    pub mistake: Option<Mistake>,
    /// The budget of faults at the start.
    pub budget: Budget,
}

impl Leases {
    fn has(&self, mistake: Mistake) -> bool {
        self.mistake == Some(mistake)
    }

    /// Whether another worker holds the row's lock, so that a statement about the row waits.
    fn is_locked(&self, state: &State, except: usize) -> bool {
        let holds = |worker: &Worker| matches!(worker, Worker::InTransaction(_));
        !self.has(Mistake::ChunkWithoutLock)
            && state.workers.iter().enumerate().any(|(n, worker)| n != except && holds(worker))
    }

    fn can_claim(&self, state: &State) -> bool {
        match state.job {
            JobState::Queued => true,
            JobState::Running => {
                (state.is_expired && !self.has(Mistake::ExpiredJobIsNotClaimed))
                    || self.has(Mistake::ClaimIgnoresTheLease)
            }
            _ => false,
        }
    }

    fn claim(state: &mut State, worker: usize) {
        state.attempts += 1;
        if state.attempts > MAX_ATTEMPTS {
            // The runner ends the attempt at once, because the workers of the earlier attempts died.
            (state.job, state.owner) = (JobState::Dead, None);
            return;
        }
        state.job = JobState::Running;
        (state.owner, state.is_expired) = (Some(worker), false);
        state.workers[worker] = Worker::HasChunk(state.position);
    }

    fn begin(&self, state: &mut State, worker: usize, chunk: u8) {
        let is_own = state.job == JobState::Running && state.owner == Some(worker);
        state.workers[worker] = if !is_own && !self.has(Mistake::ChunkIgnoresTheLease) {
            // The lease is lost, or an earlier try has committed the last chunk.
            Worker::Idle
        } else if state.position > chunk && !self.has(Mistake::RetryIgnoresThePosition) {
            // An earlier try has committed the chunk.
            Self::next(chunk)
        } else {
            Worker::InTransaction(chunk)
        };
    }

    fn next(chunk: u8) -> Worker {
        if chunk + 1 < CHUNKS { Worker::HasChunk(chunk + 1) } else { Worker::Idle }
    }

    fn write_rows(state: &mut State, worker: usize, chunk: u8) {
        let is_own = state.job == JobState::Running && state.owner == Some(worker);
        state.was_written_without_lease |= !is_own;
        state.written[usize::from(chunk)] += 1;
    }

    fn write_position(state: &mut State, chunk: u8) {
        (state.position, state.attempts, state.is_expired) = (chunk + 1, 0, false);
        if chunk + 1 == CHUNKS {
            // The row keeps its worker.
            state.job = JobState::Succeeded;
        }
    }

    /// Puts the job into the queue again if it still belongs to the worker. Returns whether it did.
    fn give_back(state: &mut State, worker: usize) -> bool {
        state.workers[worker] = Worker::Idle;
        let is_own = state.job == JobState::Running && state.owner == Some(worker);
        if is_own {
            (state.job, state.owner, state.is_expired) = (JobState::Queued, None, false);
        }
        is_own
    }

    fn worker_actions(&self, state: &State, worker: usize, actions: &mut Vec<Action>) {
        let locked = self.is_locked(state, worker);
        match state.workers[worker] {
            Worker::Idle => {
                if self.can_claim(state) && !locked {
                    actions.push(Action::Claim(worker));
                }
                return;
            }
            Worker::HasChunk(_) if !locked => {
                actions.push(Action::Begin(worker));
                if state.budget.failures > 0 {
                    actions.extend([Action::Fail(worker), Action::Release(worker)]);
                }
            }
            Worker::HasChunk(_) => {}
            Worker::InTransaction(_) => {
                actions.push(Action::Commit(worker));
                if state.budget.lost_responses > 0 {
                    actions.push(Action::CommitWithoutResponse(worker));
                }
                if state.budget.failures > 0 {
                    actions.push(Action::Abort(worker));
                }
            }
            Worker::RowsCommitted(_) => actions.push(Action::CommitPosition(worker)),
        }
        if state.budget.failures > 0 {
            actions.push(Action::Die(worker));
        }
    }
}

impl Model for Leases {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![State {
            job: JobState::Queued,
            owner: None,
            is_expired: false,
            position: 0,
            attempts: 0,
            written: [0; CHUNKS as usize],
            workers: [Worker::Idle; WORKERS],
            budget: self.budget,
            was_written_without_lease: false,
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        for worker in 0..WORKERS {
            self.worker_actions(state, worker, actions);
        }
        let holder = state.owner.filter(|_| state.job == JobState::Running && !state.is_expired);
        if let Some(holder) = holder {
            // A lease expires by itself when its worker has died, and otherwise only as a fault.
            if state.workers[holder] == Worker::Idle || state.budget.expiries > 0 {
                actions.push(Action::Expire);
            }
        }
        let is_active = matches!(state.job, JobState::Queued | JobState::Running);
        if is_active && state.budget.failures > 0 && !self.is_locked(state, WORKERS) {
            actions.push(Action::Cancel);
        }
    }

    // Long because it has one arm for each action.
    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        match action {
            Action::Claim(worker) => Self::claim(&mut state, worker),
            Action::Begin(worker) => {
                let Worker::HasChunk(chunk) = state.workers[worker] else { return None };
                self.begin(&mut state, worker, chunk);
            }
            Action::Commit(worker) | Action::CommitWithoutResponse(worker) => {
                let Worker::InTransaction(chunk) = state.workers[worker] else { return None };
                Self::write_rows(&mut state, worker, chunk);
                if self.has(Mistake::PositionAfterRows) {
                    state.workers[worker] = Worker::RowsCommitted(chunk);
                    return Some(state);
                }
                Self::write_position(&mut state, chunk);
                state.workers[worker] = Self::next(chunk);
                if matches!(action, Action::CommitWithoutResponse(_)) {
                    state.budget.lost_responses -= 1;
                    state.workers[worker] = Worker::HasChunk(chunk);
                }
            }
            Action::CommitPosition(worker) => {
                let Worker::RowsCommitted(chunk) = state.workers[worker] else { return None };
                Self::write_position(&mut state, chunk);
                state.workers[worker] = Self::next(chunk);
            }
            Action::Abort(worker) => {
                let Worker::InTransaction(chunk) = state.workers[worker] else { return None };
                state.budget.failures -= 1;
                state.workers[worker] = Worker::HasChunk(chunk);
            }
            Action::Fail(worker) => {
                state.budget.failures -= 1;
                let is_dead = state.attempts >= MAX_ATTEMPTS;
                if Self::give_back(&mut state, worker) && is_dead {
                    state.job = JobState::Dead;
                }
            }
            Action::Release(worker) => {
                state.budget.failures -= 1;
                if Self::give_back(&mut state, worker) {
                    state.attempts = state.attempts.saturating_sub(1);
                }
            }
            Action::Die(worker) => {
                state.budget.failures -= 1;
                state.workers[worker] = Worker::Idle;
            }
            Action::Expire => {
                let is_fault = state.owner.is_some_and(|n| state.workers[n] != Worker::Idle);
                state.budget.expiries -= u8::from(is_fault);
                state.is_expired = true;
            }
            Action::Cancel => {
                state.budget.failures -= 1;
                (state.job, state.owner, state.is_expired) = (JobState::Cancelled, None, false);
            }
        }
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("each row is written once at most", |_, state: &State| {
                state.written.iter().all(|count| *count <= 1)
            }),
            Property::always("no result of a lost lease is applied", |_, state: &State| {
                !state.was_written_without_lease
            }),
            Property::always("a job that succeeded has every row", |_, state: &State| {
                state.job != JobState::Succeeded || state.written == [1; CHUNKS as usize]
            }),
            Property::always("the position is where the rows end", |_, state: &State| {
                let written = state.written.iter().filter(|count| **count > 0).count();
                usize::from(state.position) == written
            }),
            Property::eventually("a job ends", |_, state: &State| {
                !matches!(state.job, JobState::Queued | JobState::Running)
            }),
            Property::sometimes(
                "a job succeeds after its lease was lost",
                |model: &Self, state: &State| {
                    state.job == JobState::Succeeded
                        && state.budget.expiries < model.budget.expiries
                },
            ),
            Property::sometimes("a job is a dead letter", |_, state: &State| {
                state.job == JobState::Dead
            }),
        ]
    }
}
