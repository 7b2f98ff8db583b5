//! One question to the agent on a backend: a connection, and a line to read.
//!
//! The connection ends in a reset, as those of probes do, once the line is there: an agent writes it
//! in one go, and closes.

use std::net::{IpAddr, SocketAddr};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpSocket, TcpStream},
    time::Instant,
};

use super::{Deadline, Phase, ProbeFailure};
use crate::{
    health::agent::{Answer, Unknown},
    model::AgentCheck,
};

/// How many bytes a line may have.
const LONGEST_LINE: usize = 4096;

/// Why an agent was not understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unheard {
    /// The connection did not bring an answer.
    #[error(transparent)]
    Connection(ProbeFailure),
    /// The answer says nothing.
    #[error(transparent)]
    Unknown(#[from] Unknown),
}

/// Asks an agent once, within the check's time-out.
///
/// # Errors
/// Where no answer comes, or none that says anything. That is no failure of the backend's.
///
/// # Panics
/// Outside a tokio runtime with input, output and time.
pub async fn ask(address: IpAddr, check: &AgentCheck) -> Result<Answer, Unheard> {
    let deadline = Deadline {
        at: Instant::now() + check.timeout,
        limit: check.timeout,
    };
    let to = SocketAddr::new(address, check.port.get());
    let connection = deadline.bound(Phase::Connecting, connect(to));
    let stream = connection.await.map_err(Unheard::Connection)?;
    let line = deadline.bound(Phase::Waiting, exchange(stream, &check.send));
    let line = line.await.map_err(Unheard::Connection)?;
    Ok(Answer::parse(&String::from_utf8_lossy(&line))?)
}

async fn connect(to: SocketAddr) -> Result<TcpStream, ProbeFailure> {
    let socket = match to {
        SocketAddr::V4(_) => TcpSocket::new_v4(),
        SocketAddr::V6(_) => TcpSocket::new_v6(),
    };
    let failure = |error: std::io::Error| ProbeFailure::of_io(&error, Phase::Connecting);
    let socket = socket.map_err(failure)?;
    socket.set_zero_linger().map_err(failure)?;
    socket.connect(to).await.map_err(failure)
}

/// Sends what is to be sent, and reads up to the end of a line or of the connection.
async fn exchange(mut stream: TcpStream, send: &str) -> Result<Vec<u8>, ProbeFailure> {
    let failure = |error: std::io::Error| ProbeFailure::of_io(&error, Phase::Waiting);
    stream.write_all(send.as_bytes()).await.map_err(failure)?;
    let mut line = Vec::with_capacity(64);
    while line.len() < LONGEST_LINE && !line.iter().any(|byte| matches!(byte, b'\r' | b'\n')) {
        match stream.read_buf(&mut line).await {
            Ok(0) => break,
            Ok(_) => {}
            // An agent that has not read what it was sent ends with a reset.
            Err(_) if !line.is_empty() => break,
            Err(e) => return Err(failure(e)),
        }
    }
    Ok(line)
}

#[cfg(test)]
mod tests {
    use std::{num::NonZeroU16, time::Duration};

    use tokio::net::TcpListener;

    use super::*;
    use crate::health::agent::Admin;

    async fn listen() -> (TcpListener, AgentCheck) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = NonZeroU16::new(listener.local_addr().unwrap().port()).unwrap();
        let check = AgentCheck {
            port,
            interval: AgentCheck::INTERVAL,
            timeout: Duration::from_secs(10),
            send: String::new(),
            keep: AgentCheck::KEEP,
        };
        (listener, check)
    }

    const LOCAL: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    #[tokio::test]
    async fn a_line_is_read_whether_or_not_the_connection_ends() {
        let (listener, check) = listen().await;
        for (text, closes) in [("drain # gone\n", false), ("drain # gone", true)] {
            let agent = async {
                let (mut stream, _) = listener.accept().await.unwrap();
                stream.write_all(text.as_bytes()).await.unwrap();
                if closes {
                    drop(stream);
                    return None;
                }
                Some(stream)
            };
            let (answer, _open) = tokio::join!(ask(LOCAL, &check), agent);
            let answer = answer.unwrap();
            assert_eq!(answer.admin, Some(Admin::Drain));
            assert_eq!(answer.note.as_deref(), Some("gone"));
        }
    }

    #[tokio::test]
    async fn an_agent_is_sent_what_is_configured() {
        let (listener, mut check) = listen().await;
        "load?\n".clone_into(&mut check.send);
        let agent = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut sent = [0; 6];
            stream.read_exact(&mut sent).await.unwrap();
            stream.write_all(b"42%\n").await.unwrap();
            sent
        };
        let (answer, sent) = tokio::join!(ask(LOCAL, &check), agent);
        assert_eq!(&sent, b"load?\n");
        assert_eq!(answer.unwrap().percent, Some(42));
    }

    #[tokio::test]
    async fn what_says_nothing_is_told_with_its_reason() {
        let (listener, check) = listen().await;
        let agent = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.write_all(b"hello\n").await.unwrap();
            stream
        };
        let (answer, _open) = tokio::join!(ask(LOCAL, &check), agent);
        let why = answer.unwrap_err().to_string();
        assert!(why.contains("no word that is known: \"hello\""), "{why}");

        let agent = async { drop(listener.accept().await.unwrap()) };
        let (answer, ()) = tokio::join!(ask(LOCAL, &check), agent);
        assert_eq!(answer.unwrap_err().to_string(), "the answer is empty");

        drop(listener);
        let why = ask(LOCAL, &check).await.unwrap_err().to_string();
        assert_eq!(why, "connection refused");
    }

    #[tokio::test(start_paused = true)]
    async fn an_agent_that_says_nothing_is_not_waited_for() {
        let (listener, check) = listen().await;
        let why = ask(LOCAL, &check).await.unwrap_err().to_string();
        assert_eq!(why, "no answer within 10000 ms (waiting for the response)");
        drop(listener);
    }
}
