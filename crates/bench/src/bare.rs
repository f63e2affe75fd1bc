//! `linnet-bench-bare LISTEN`: an actix handler that answers every path with the same redirect.
//!
//! It is the baseline for redirects. It has the same framework, allocator, number of server threads and kind of
//! listener as the shortener's resolve listener, but no code of the product. The ratio between the two is the product's
//! cost.

use std::{env, time::Duration};

use actix_web::{
    App, HttpResponse, HttpServer,
    http::header::{CACHE_CONTROL, HeaderValue, LOCATION},
    web,
};
use linnet_platform::listener::{Address, BoundSocket, Listener};
use mimalloc::MiMalloc;

#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

async fn redirect() -> HttpResponse {
    HttpResponse::Found()
        .insert_header((
            LOCATION,
            HeaderValue::from_static("https://www.example.com/articles/2345678?utm_source=linnet"),
        ))
        .insert_header((CACHE_CONTROL, HeaderValue::from_static("private, max-age=0")))
        .finish()
}

#[actix_web::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let address: Address = env::args().nth(1).ok_or("usage: linnet-bench-bare LISTEN")?.parse()?;
    let (bound, retire) = Listener::bind(&address)?.split();
    let server = HttpServer::new(|| App::new().default_service(web::to(redirect)));
    let server = match bound {
        BoundSocket::Tcp(listener) => server.listen(listener)?,
        BoundSocket::Unix(listener) => server.listen_uds(listener)?,
    };
    server.keep_alive(Duration::from_secs(75)).shutdown_timeout(1).run().await?;
    retire.retire();
    Ok(())
}
