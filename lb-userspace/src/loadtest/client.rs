//! One request and its answer.

use std::{
    cell::{Cell, RefCell},
    io,
    net::{IpAddr, SocketAddr},
    pin::pin,
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use http_body_util::{BodyExt as _, Full};
use hyper::{
    Request,
    body::Bytes,
    client::conn::http1::{self, SendRequest},
    header::{self, HeaderMap},
};
use hyper_util::rt::TokioIo;
use rustix::io::Errno;
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpSocket, TcpStream, UdpSocket},
    task,
    time::{Instant, timeout_at},
};
use tokio_rustls::{
    TlsConnector,
    rustls::{ClientConfig, pki_types::ServerName},
};

use super::{
    tally::Failure,
    target::{Scheme, Target},
};

/// The longest datagram.
const DATAGRAM: usize = 65_536;
/// How much of an answer is read at a time.
const PART: usize = 16 * 1024;

/// What a request consists of, the same for all.
#[derive(Clone, Debug)]
pub struct Ask {
    /// What is asked.
    pub target: Target,
    /// Of HTTP: the method.
    pub method: hyper::Method,
    /// Of HTTP: more headers.
    pub headers: HeaderMap,
    /// Of HTTP, the body; else what is sent, which may be nothing under TCP.
    pub body: Bytes,
    /// Of HTTP: whether a connection that is free again takes the next request.
    pub keeps: bool,
    /// The addresses that requests come from, in turns; the system's choice where there is none.
    pub from: Vec<IpAddr>,
    /// How long after it was due a request has failed.
    pub timeout: Duration,
    /// Of HTTPS.
    pub tls: Option<Arc<ClientConfig>>,
}

/// A worker's client.
pub(super) struct Client {
    ask: Ask,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    /// Connections that are free.
    idle: RefCell<Vec<SendRequest<Full<Bytes>>>>,
    turn: Cell<usize>,
}

impl Client {
    /// A client whose turn of addresses begins at a place of its own.
    pub(super) fn new(ask: Ask, turn: usize) -> Self {
        let name = ServerName::try_from(ask.target.host.clone())
            .unwrap_or_else(|_| ask.target.address.ip().into());
        Self {
            tls: ask
                .tls
                .clone()
                .map(|config| (TlsConnector::from(config), name)),
            idle: RefCell::default(),
            turn: Cell::new(turn),
            ask,
        }
    }

    /// Asks once; answers the bytes of the answer.
    pub(super) async fn ask(self: &Rc<Self>, due: Instant) -> Result<u64, Failure> {
        let exchange = async {
            match self.ask.target.scheme {
                Scheme::Http | Scheme::Https => self.http().await,
                Scheme::Tcp => self.tcp().await,
                Scheme::Udp => self.udp().await,
            }
        };
        timeout_at(due + self.ask.timeout, exchange)
            .await
            .unwrap_or(Err(Failure::TimedOut))
    }

    /// Where the next request comes from.
    fn from(&self) -> Option<IpAddr> {
        let turn = self.turn.get();
        self.turn.set(turn.wrapping_add(1));
        let from = &self.ask.from;
        (!from.is_empty()).then(|| from[turn % from.len()])
    }

    async fn connect(&self) -> Result<TcpStream, Failure> {
        let to = self.ask.target.address;
        let socket = || -> io::Result<TcpSocket> {
            let socket = match to {
                SocketAddr::V4(_) => TcpSocket::new_v4()?,
                SocketAddr::V6(_) => TcpSocket::new_v6()?,
            };
            // A connection that is over leaves no port behind in TIME_WAIT.
            socket.set_zero_linger()?;
            socket.set_nodelay(true)?;
            if let Some(from) = self.from() {
                socket.bind(SocketAddr::new(from, 0))?;
            }
            Ok(socket)
        };
        let socket = socket().map_err(|e| of_io(&e))?;
        socket.connect(to).await.map_err(|e| of_io(&e))
    }

    async fn tcp(&self) -> Result<u64, Failure> {
        let mut stream = self.connect().await?;
        if self.ask.body.is_empty() {
            return Ok(0);
        }
        stream
            .write_all(&self.ask.body)
            .await
            .map_err(|e| of_io(&e))?;
        let mut part = vec![0; PART];
        match stream.read(&mut part).await {
            Ok(0) => Err(Failure::Closed),
            Ok(bytes) => Ok(bytes as u64),
            Err(e) => Err(of_io(&e)),
        }
    }

    async fn udp(&self) -> Result<u64, Failure> {
        let to = self.ask.target.address;
        let socket = || -> io::Result<UdpSocket> {
            let socket = Socket::new(Domain::for_address(to), Type::DGRAM, Some(Protocol::UDP))?;
            socket.set_nonblocking(true)?;
            if let Some(from) = self.from() {
                socket.bind(&SocketAddr::new(from, 0).into())?;
            }
            SockRef::from(&socket).connect(&to.into())?;
            UdpSocket::from_std(socket.into())
        };
        let socket = socket().map_err(|e| of_io(&e))?;
        socket.send(&self.ask.body).await.map_err(|e| of_io(&e))?;
        let mut answer = vec![0; DATAGRAM];
        let bytes = socket.recv(&mut answer).await.map_err(|e| of_io(&e))?;
        Ok(bytes as u64)
    }

    async fn http(self: &Rc<Self>) -> Result<u64, Failure> {
        while let Some(mut sender) = self.free() {
            if sender.is_closed() || sender.ready().await.is_err() {
                continue;
            }
            match sender.try_send_request(self.request()).await {
                Ok(response) => {
                    let bytes = read(response).await?;
                    self.put_back(sender);
                    return Ok(bytes);
                }
                // The server ended the connection before it saw the request.
                Err(error) if error.message().is_some() => {}
                Err(error) => return Err(of_http(error.error())),
            }
        }
        let stream = self.connect().await?;
        match &self.tls {
            None => self.ask_over(stream).await,
            Some((connector, name)) => {
                let stream = connector.connect(name.clone(), stream).await;
                self.ask_over(stream.map_err(|_| Failure::Tls)?).await
            }
        }
    }

    /// Asks over a new connection.
    async fn ask_over(
        self: &Rc<Self>,
        stream: impl AsyncRead + AsyncWrite + Unpin + 'static,
    ) -> Result<u64, Failure> {
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|e| of_http(&e))?;
        if self.ask.keeps {
            task::spawn_local(connection.without_shutdown());
            let response = sender.send_request(self.request()).await;
            let bytes = read(response.map_err(|e| of_http(&e))?).await?;
            self.put_back(sender);
            return Ok(bytes);
        }
        let mut exchange = pin!(async {
            let response = sender.send_request(self.request()).await;
            read(response.map_err(|e| of_http(&e))?).await
        });
        tokio::select! {
            biased;
            answer = &mut exchange => answer,
            // The exchange is told of an error, too.
            _ = connection.without_shutdown() => exchange.await,
        }
    }

    fn free(&self) -> Option<SendRequest<Full<Bytes>>> {
        self.idle.borrow_mut().pop()
    }

    fn put_back(&self, sender: SendRequest<Full<Bytes>>) {
        if !sender.is_closed() {
            self.idle.borrow_mut().push(sender);
        }
    }

    fn request(&self) -> Request<Full<Bytes>> {
        let ask = &self.ask;
        let mut request = Request::new(Full::new(ask.body.clone()));
        *request.method_mut() = ask.method.clone();
        if let Ok(path) = ask.target.path.parse() {
            *request.uri_mut() = path;
        }
        let headers = request.headers_mut();
        if let Ok(host) = ask.target.authority.parse() {
            headers.insert(header::HOST, host);
        }
        headers.insert(
            header::USER_AGENT,
            header::HeaderValue::from_static(concat!(
                "evenkeel-loadtest/",
                env!("CARGO_PKG_VERSION")
            )),
        );
        // Those that were given come in the place of these.
        for name in ask.headers.keys() {
            headers.remove(name);
        }
        headers.extend(ask.headers.clone());
        if !ask.keeps {
            headers.insert(
                header::CONNECTION,
                header::HeaderValue::from_static("close"),
            );
        }
        request
    }
}

/// Reads an answer to its end.
async fn read(response: hyper::Response<hyper::body::Incoming>) -> Result<u64, Failure> {
    let status = response.status();
    let mut body = response.into_body();
    let mut bytes = 0;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|e| of_http(&e))?;
        bytes += frame.data_ref().map_or(0, |data| data.len() as u64);
    }
    if status.is_client_error() || status.is_server_error() {
        return Err(Failure::Status(status.as_u16()));
    }
    Ok(bytes)
}

fn of_io(error: &io::Error) -> Failure {
    match Errno::from_io_error(error) {
        Some(Errno::CONNREFUSED) => Failure::Refused,
        Some(Errno::ADDRNOTAVAIL | Errno::ADDRINUSE | Errno::AGAIN) => Failure::NoPort,
        Some(Errno::MFILE | Errno::NFILE) => Failure::NoFile,
        Some(Errno::TIMEDOUT) => Failure::TimedOut,
        Some(Errno::HOSTUNREACH | Errno::NETUNREACH | Errno::NETDOWN | Errno::ACCESS) => {
            Failure::Unreachable
        }
        _ => Failure::Closed,
    }
}

fn of_http(error: &hyper::Error) -> Failure {
    if error.is_parse() || error.is_parse_status() {
        Failure::Protocol
    } else {
        Failure::Closed
    }
}
