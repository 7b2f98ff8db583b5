//! Connections: how many, how long, and with TLS or without.

use std::{sync::Arc, time::Duration};

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use log::{debug, warn};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::{Semaphore, watch},
    time,
};

use super::{routes::Site, tls};
use crate::{causes::with_causes, model::HttpServer};

/// Connections served at a time; others wait in the kernel's backlog.
pub(super) const MAX_CONNECTIONS: usize = 64;
/// How long a handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// How long the next request's header may take, and so how long a connection may be silent.
const HEADER: Duration = Duration::from_secs(15);
/// How long a connection may last; what is being answered by then may be finished.
const LIFE: Duration = Duration::from_mins(1);
/// How long that may take.
const LAST: Duration = Duration::from_secs(10);
/// Request line and header fields together, in bytes.
const MAX_HEAD: usize = 16 * 1024;
/// The wait after a failed `accept`, which mostly means that file descriptors have run out.
const ACCEPT_RETRY: Duration = Duration::from_millis(200);

/// Takes connections for as long as it is polled.
pub(super) async fn accept(
    listener: TcpListener,
    config: watch::Receiver<HttpServer>,
    site: Site,
    connections: Arc<Semaphore>,
) {
    // It is never closed.
    while let Ok(permit) = Arc::clone(&connections).acquire_owned().await {
        match listener.accept().await {
            Ok((stream, _)) => {
                let config = config.borrow().clone();
                let routes = site.routes(config.token.clone());
                tokio::spawn(async move {
                    serve(stream, &config, routes).await;
                    drop(permit);
                });
            }
            Err(e) => {
                warn!("cannot accept an HTTP connection: {e}");
                time::sleep(ACCEPT_RETRY).await;
            }
        }
    }
}

async fn serve(stream: TcpStream, config: &HttpServer, routes: Router) {
    let Some(certificate) = &config.certificate else {
        return speak(stream, routes).await;
    };
    let acceptor = match tls::acceptor(certificate) {
        Ok(acceptor) => acceptor,
        Err(e) => return warn!("cannot serve HTTPS: {}", with_causes(&e)),
    };
    match time::timeout(HANDSHAKE, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => speak(stream, routes).await,
        Ok(Err(e)) => debug!("an HTTPS handshake failed: {e}"),
        Err(_) => debug!("an HTTPS handshake took too long"),
    }
}

async fn speak(stream: impl AsyncRead + AsyncWrite + Unpin, routes: Router) {
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER)
        .max_buf_size(MAX_HEAD)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(routes));
    let mut connection = std::pin::pin!(connection);
    let ended = if let Ok(ended) = time::timeout(LIFE, &mut connection).await {
        ended
    } else {
        connection.as_mut().graceful_shutdown();
        let Ok(ended) = time::timeout(LAST, connection).await else {
            return debug!("an HTTP connection was cut off for taking too long");
        };
        ended
    };
    if let Err(e) = ended {
        debug!("an HTTP connection failed: {e}");
    }
}
