//! A client of HTTPS that accepts every certificate and returns it, for tests of nginx with TLS.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use tokio_rustls::{
    TlsConnector,
    client::TlsStream,
    rustls::{
        ClientConfig, DigitallySignedStruct, Error, SignatureScheme,
        client::{
            Resumption,
            danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        },
        crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature},
        pki_types::{CertificateDer, ServerName, UnixTime},
    },
};

const TIMEOUT: Duration = Duration::from_secs(10);

/// A connection after its handshake.
#[derive(Debug)]
pub struct HttpsConnection {
    stream: TlsStream<TcpStream>,
    host: String,
}

/// Connects with a full handshake. `alpn` are the protocols to offer, such as `h2`.
pub async fn connect(
    address: SocketAddr,
    host: &str,
    alpn: &[&str],
) -> std::io::Result<HttpsConnection> {
    let provider = Arc::new(ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .expect("protocol versions")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AcceptAll(provider)))
        .with_no_client_auth();
    config.resumption = Resumption::disabled();
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    let name = ServerName::try_from(host.to_owned()).expect("a host name");
    let connector = TlsConnector::from(Arc::new(config));
    let handshake = async {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        connector.connect(name, stream).await
    };
    let stream =
        tokio::time::timeout(TIMEOUT, handshake).await.map_err(std::io::Error::other)??;
    Ok(HttpsConnection { stream, host: host.to_owned() })
}

impl HttpsConnection {
    /// The stream, for other protocols than HTTP/1.1.
    pub fn into_stream(self) -> TlsStream<TcpStream> {
        self.stream
    }

    /// The server's certificate, in DER format.
    pub fn certificate(&self) -> CertificateDer<'static> {
        let (_, session) = self.stream.get_ref();
        let chain = session.peer_certificates().expect("a finished handshake");
        chain.first().expect("a certificate").clone().into_owned()
    }

    /// The protocol that the server selected.
    pub fn alpn(&self) -> Option<String> {
        let (_, session) = self.stream.get_ref();
        session.alpn_protocol().map(|name| String::from_utf8_lossy(name).into_owned())
    }

    /// Sends `GET` over HTTP/1.1 and returns the response's head; the connection stays open. The body must have a
    /// length.
    pub async fn get(&mut self, path: &str) -> std::io::Result<String> {
        let request = format!("GET {path} HTTP/1.1\r\nHost: {}\r\n\r\n", self.host);
        let exchange = async {
            self.stream.write_all(request.as_bytes()).await?;
            let mut response = Vec::new();
            loop {
                if let Some(end) = response.windows(4).position(|window| window == b"\r\n\r\n") {
                    let head = String::from_utf8_lossy(&response[..end]).into_owned();
                    let length: usize = head
                        .lines()
                        .filter_map(|line| line.split_once(": "))
                        .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
                        .map_or(0, |(_, value)| value.parse().expect("a length"));
                    if response.len() >= end + 4 + length {
                        return Ok(head);
                    }
                }
                let mut buffer = [0; 4096];
                let read = self.stream.read(&mut buffer).await?;
                if read == 0 {
                    return Err(std::io::ErrorKind::UnexpectedEof.into());
                }
                response.extend_from_slice(&buffer[..read]);
            }
        };
        tokio::time::timeout(TIMEOUT, exchange).await.map_err(std::io::Error::other)?
    }
}

/// Accepts every certificate; the handshake's signature is verified.
#[derive(Debug)]
struct AcceptAll(Arc<CryptoProvider>);

impl ServerCertVerifier for AcceptAll {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
