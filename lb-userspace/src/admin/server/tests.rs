use std::{
    fs,
    os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt},
};

use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::oneshot,
    task::JoinHandle,
};

use super::*;
use crate::admin::{
    client::{Client, ClientError},
    proto::Tables,
};

fn status(generation: u64) -> Arc<Status> {
    Arc::new(Status {
        version: "0.1.0 (test)".to_owned(),
        pid: 1,
        started_at_ms: 1,
        now_ms: 2,
        config_file: "/etc/evenkeel/evenkeel.toml".to_owned(),
        config_sha256: String::new(),
        generation,
        published_at_ms: None,
        interfaces: Vec::new(),
        tables: Tables {
            as_intended: true,
            checked_at_ms: 2,
            differing_slots: 0,
            differences: Vec::new(),
        },
        exits: [("not-for-us".to_owned(), u64::MAX)].into(),
        tracking: crate::admin::proto::Tracking::default(),
        journal: crate::admin::proto::Journal::default(),
        refused: None,
        alerts: Vec::new(),
        notify: crate::admin::proto::Notify::default(),
        services: Vec::new(),
    })
}

fn config(socket: &Path) -> AdminConfig {
    AdminConfig {
        socket: socket.to_owned(),
        group: None,
    }
}

/// A server over a real socket in a folder that does not exist yet.
struct Running {
    folder: TempDir,
    socket: PathBuf,
    latest: watch::Sender<Arc<Status>>,
    stop: oneshot::Sender<()>,
    task: JoinHandle<io::Result<()>>,
}

impl Running {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("run/evenkeel/evenkeel.sock");
        let server = Server::bind(&config(&socket)).unwrap();
        let (latest, receiver) = watch::channel(status(7));
        let (stop, stopped) = oneshot::channel::<()>();
        let task = tokio::spawn(server.serve(receiver, async {
            let _ = stopped.await;
        }));
        Self {
            folder,
            socket,
            latest,
            stop,
            task,
        }
    }

    /// Sends bytes as they are and returns all that comes back.
    async fn raw(&self, request: &str) -> String {
        let mut stream = UnixStream::connect(&self.socket).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        // A server that has answered may reset what it does not want to read.
        let _ = stream.read_to_end(&mut answer).await;
        String::from_utf8(answer).unwrap()
    }

    async fn stop(self) -> TempDir {
        self.stop.send(()).unwrap();
        self.task.await.unwrap().unwrap();
        self.folder
    }
}

#[tokio::test]
async fn the_latest_status_arrives_whole() {
    let running = Running::start();
    let client = Client::new(&running.socket);
    assert_eq!(client.status().await.unwrap(), *status(7));
    running.latest.send_replace(status(8));
    assert_eq!(client.status().await.unwrap(), *status(8));
}

#[tokio::test]
async fn other_paths_and_methods_are_refused_in_words() {
    let running = Running::start();
    let answer = running
        .raw("GET /v2/nothing HTTP/1.1\r\nHost: x\r\n\r\n")
        .await;
    assert!(answer.starts_with("HTTP/1.1 404 "), "{answer}");
    assert!(
        answer.ends_with(
            r#"{"error":"there is nothing at /v2/nothing: the status is at /v1/status"}"#
        ),
        "{answer}"
    );
    let answer = running
        .raw("DELETE /v1/status HTTP/1.1\r\nHost: x\r\n\r\n")
        .await;
    assert!(answer.starts_with("HTTP/1.1 405 "), "{answer}");
    assert!(
        answer.to_lowercase().contains("\r\nallow: get,head\r\n"),
        "{answer}"
    );
    assert!(
        answer.ends_with(r#"{"error":"/v1/status does not take DELETE: use GET"}"#),
        "{answer}"
    );
}

#[tokio::test]
async fn oversized_heads_and_announced_bodies_cost_nothing() {
    let running = Running::start();
    let long = format!(
        "GET /v1/status HTTP/1.1\r\nHost: x\r\nX: {}\r\n\r\n",
        "x".repeat(MAX_HEAD)
    );
    assert!(running.raw(&long).await.starts_with("HTTP/1.1 431 "));
    let body = "GET /v1/status HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000\r\n\r\n";
    assert!(running.raw(body).await.starts_with("HTTP/1.1 200 "));
}

#[tokio::test(start_paused = true)]
async fn a_silent_peer_is_cut_off() {
    let running = Running::start();
    let before = tokio::time::Instant::now();
    assert_eq!(running.raw("GET /v1/sta").await, "");
    assert_eq!(before.elapsed().as_secs(), CONNECTION_TIME.as_secs());
}

#[tokio::test(start_paused = true)]
async fn silent_peers_cannot_keep_others_out() {
    let running = Running::start();
    let mut silent = Vec::new();
    for _ in 0..MAX_CONNECTIONS {
        silent.push(UnixStream::connect(&running.socket).await.unwrap());
    }
    // More than the bound at once: the last waits until the first are cut off.
    let answer = running
        .raw("GET /v1/status HTTP/1.1\r\nHost: x\r\n\r\n")
        .await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
}

#[tokio::test]
async fn the_socket_is_narrow_and_gone_at_the_end() {
    let running = Running::start();
    let socket = running.socket.clone();
    let found = fs::metadata(&socket).unwrap();
    assert!(found.file_type().is_socket());
    assert_eq!(found.permissions().mode() & 0o7777, 0o660);
    let folder = fs::metadata(socket.parent().unwrap()).unwrap();
    assert_eq!(folder.permissions().mode() & 0o7777, 0o755);

    let _folder = running.stop().await;
    assert_eq!(fs::read_dir(socket.parent().unwrap()).unwrap().count(), 0);
    let error = Client::new(&socket).status().await.unwrap_err();
    assert!(
        matches!(error, ClientError::NoController { .. }),
        "{error:?}"
    );
    assert!(
        error.to_string().contains(&*socket.to_string_lossy()),
        "{error}"
    );
}

#[tokio::test]
async fn a_living_controller_is_not_replaced() {
    let running = Running::start();
    let before = fs::metadata(&running.socket).unwrap().ino();
    let error = Server::bind(&config(&running.socket)).unwrap_err();
    let pid = i32::try_from(std::process::id()).unwrap();
    assert!(
        matches!(error, BindError::Live { pid: Some(found), .. } if found == pid),
        "{error:?}"
    );
    assert_eq!(fs::metadata(&running.socket).unwrap().ino(), before);
    assert!(Client::new(&running.socket).status().await.is_ok());
}

#[test]
fn a_living_stranger_is_not_replaced_and_a_dead_socket_is() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("s");
    // The standard library's listener takes no lock and leaves its file behind.
    let stranger = StdUnixListener::bind(&socket).unwrap();
    let error = Server::bind(&config(&socket)).unwrap_err();
    assert!(matches!(error, BindError::Live { .. }), "{error:?}");
    drop(stranger);
    assert!(socket.exists());
    let server = Server::bind(&config(&socket)).unwrap();
    assert_eq!(
        fs::metadata(&socket).unwrap().permissions().mode() & 0o7777,
        0o660
    );
    drop(server);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn what_is_no_socket_stays() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notes");
    fs::write(&path, "keep me").unwrap();
    let error = Server::bind(&config(&path)).unwrap_err();
    assert!(matches!(error, BindError::NotASocket { .. }), "{error:?}");
    assert_eq!(fs::read_to_string(&path).unwrap(), "keep me");
}

#[test]
fn groups_are_names_or_numbers() {
    assert_eq!(resolve_group("4711").unwrap().as_raw(), 4711);
    assert_eq!(resolve_group("root").unwrap().as_raw(), 0);
    let error = resolve_group("no-such-group").unwrap_err();
    assert!(
        error
            .to_string()
            .contains("groupadd --system no-such-group"),
        "{error}"
    );
}

#[tokio::test]
async fn an_answer_that_is_no_status_is_told_apart() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("s");
    let listener = UnixListener::bind(&socket).unwrap();
    tokio::spawn(async move {
        for answer in ["HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", ""] {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0; 1024];
            let _ = stream.read(&mut request).await.unwrap();
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
    });
    let client = Client::new(&socket);
    let error = client.status().await.unwrap_err();
    assert!(
        matches!(error, ClientError::NotUnderstood { .. }),
        "{error:?}"
    );
    let error = client.status().await.unwrap_err();
    assert!(matches!(error, ClientError::Broken { .. }), "{error:?}");
}

#[tokio::test(start_paused = true)]
async fn a_controller_that_hangs_is_given_up() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("s");
    let _listener = UnixListener::bind(&socket).unwrap();
    let error = Client::new(&socket).status().await.unwrap_err();
    assert!(matches!(error, ClientError::Timeout { .. }), "{error:?}");
}
