//! Formats an error with its causes.

use std::{error::Error, iter};

/// The error and its causes, outermost first, separated by `: `.
pub fn error_chain(error: &(dyn Error + 'static)) -> String {
    let chain = iter::successors(Some(error), |&error| error.source());
    chain.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{0}")]
    struct Layer(&'static str, #[source] Option<Box<Layer>>);

    #[test]
    fn an_error_is_followed_by_its_causes() {
        let cause = Layer("no such host", None);
        let error =
            Layer("cannot connect", Some(Box::new(Layer("lookup failed", Some(Box::new(cause))))));
        assert_eq!(error_chain(&error), "cannot connect: lookup failed: no such host");
    }
}
