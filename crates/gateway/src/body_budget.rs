//! The budget of request bodies in progress, and the owners that share it.

use linnet_domain::UserId;
use linnet_platform::{byte_budget::ByteBudget, client_network::ClientNetwork};

/// The charge of a streamed body, in bytes: the chunks between client and shortener, with the buffers
/// of both connections.
pub(crate) const STREAM_BYTES: usize = 64 * 1_024;

/// One owner can take the budget divided by this.
const SHARE: usize = 8;

/// The owner to which request bodies are charged.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum BodyOwner {
    /// All keys of one user.
    User(UserId),
    /// Clients without a key in one network; `None` if the address is unknown.
    Network(Option<ClientNetwork>),
}

/// A budget of this many bytes for the process.
pub(crate) fn body_budget(bytes: usize) -> ByteBudget<BodyOwner> {
    ByteBudget::new(bytes, bytes / SHARE)
}

#[cfg(test)]
mod tests {
    use linnet_platform::byte_budget::BudgetExceeded;

    use super::*;

    #[test]
    fn must_26_an_owner_takes_an_eighth_of_the_budget() {
        let budget = body_budget(800);
        let mut user = budget.reserve(BodyOwner::User(UserId::MIN));
        assert_eq!(user.grow(101), Err(BudgetExceeded::Owner));
        assert_eq!(user.grow(100), Ok(()));
        let mut network = budget.reserve(BodyOwner::Network(None));
        assert_eq!(network.grow(100), Ok(()));
        assert_eq!(STREAM_BYTES, 65_536);
    }
}
