//! Faults of the TLS handshake with PostgreSQL.

use linnet_tls::TlsFault;

/// Why the TLS handshake with the server failed, if it did.
pub fn tls_fault(error: &sqlx::Error) -> Option<TlsFault> {
    match error {
        // PostgreSQL declines the request for TLS.
        sqlx::Error::Tls(reason) if reason.to_string() == "server does not support TLS" => {
            Some(TlsFault::PlainServer)
        }
        _ => TlsFault::find(error),
    }
}
