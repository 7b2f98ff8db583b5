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

use super::{
    change::{Answer, Ask, Because, Refused},
    *,
};
use crate::admin::{
    client::{Client, ClientError},
    proto::{
        Tables,
        change::{Finding, Plan, Request},
    },
};

fn status(generation: u64) -> Arc<Status> {
    Arc::new(Status {
        version: "0.1.0 (test)".to_owned(),
        pid: 1,
        started_at_ms: 1,
        now_ms: 2,
        config_file: "/etc/evenkeel/evenkeel.toml".to_owned(),
        config_sha256: String::new(),
        configuration: crate::admin::proto::change::Configuration::default(),
        waiting_overrides: Vec::new(),
        generation,
        published_at_ms: None,
        interfaces: Vec::new(),
        tables: Tables {
            as_intended: true,
            checked_at_ms: 2,
            differing_slots: 0,
            differences: Vec::new(),
            repairs: crate::admin::proto::Repairs::default(),
        },
        exits: [("not-for-us".to_owned(), u64::MAX)].into(),
        tracking: crate::admin::proto::Tracking::default(),
        journal: crate::admin::proto::Journal::default(),
        refused: None,
        alerts: Vec::new(),
        incidents: Vec::new(),
        notify: crate::admin::proto::Notify::default(),
        publications: crate::admin::proto::measured::Publications::default(),
        audit: crate::admin::proto::measured::Audit::default(),
        history: crate::admin::proto::measured::History::default(),
        http: crate::admin::proto::measured::Http::default(),
        drill: None,
        services: Vec::new(),
    })
}

fn config(socket: &Path) -> AdminConfig {
    AdminConfig {
        socket: socket.to_owned(),
        group: None,
        change_group: None,
    }
}

/// A server over a real socket in a folder that does not exist yet.
struct Running {
    folder: TempDir,
    socket: PathBuf,
    latest: watch::Sender<Arc<Status>>,
    stop: oneshot::Sender<()>,
    task: JoinHandle<io::Result<()>>,
    asks: mpsc::Receiver<Asked>,
}

impl Running {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("run/evenkeel/evenkeel.sock");
        let server = Server::bind(&config(&socket)).unwrap();
        let (latest, receiver) = watch::channel(status(7));
        let (stop, stopped) = oneshot::channel::<()>();
        let (asks_in, asks) = mpsc::channel(4);
        let task = tokio::spawn(server.serve(receiver, asks_in, async {
            let _ = stopped.await;
        }));
        Self {
            folder,
            socket,
            latest,
            stop,
            task,
            asks,
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

#[tokio::test(start_paused = true)]
async fn questions_wait_for_the_controller_and_refusals_arrive_whole() {
    let mut running = Running::start();
    let client = Client::new(&running.socket);
    let change = Request {
        file: "/next.toml".to_owned(),
        text: "x".repeat(3 * 1024 * 1024),
        ..Request::default()
    };
    let expected = change.clone();
    let controller = async {
        let asked = running.asks.recv().await.unwrap();
        assert_eq!(asked.ask, Ask::Plan(expected));
        assert_eq!(asked.by.uid, Some(Uid::effective().as_raw()));
        // Longer than a connection lasts that asks for nothing.
        time::sleep(CONNECTION_TIME * 3).await;
        let plan = Plan {
            slots_moved: 5,
            ..Plan::default()
        };
        let _ = asked.answer.send(Ok(Answer::Plan(Box::new(plan))));
        let asked = running.asks.recv().await.unwrap();
        assert!(matches!(asked.ask, Ask::Apply(_)), "{:?}", asked.ask);
        let finding = Finding {
            rule: "L4".to_owned(),
            level: "error".to_owned(),
            service: None,
            backend: None,
            what: String::new(),
            why: String::new(),
            remedy: String::new(),
            added: true,
        };
        let refused = Refused {
            findings: vec![finding],
            ..Refused::new(Because::Conflict, "no\nand no")
        };
        let _ = asked.answer.send(Err(refused));
    };
    let questions = async {
        assert_eq!(client.plan(&change).await.unwrap().slots_moved, 5);
        client.apply(&change).await.unwrap_err()
    };
    let ((), refused) = tokio::join!(controller, questions);
    let ClientError::Refused {
        code,
        problem,
        findings,
        ..
    } = refused
    else {
        panic!("{refused:?}");
    };
    assert_eq!(
        (code, problem.as_str()),
        (StatusCode::CONFLICT, "no\nand no")
    );
    assert_eq!(findings[0].rule, "L4");
}

#[tokio::test]
async fn who_may_look_may_not_change() {
    let (asks, mut asked) = mpsc::channel(4);
    let desk = |may_change| Desk {
        asks: asks.clone(),
        caller: Caller {
            actor: Actor {
                uid: Some(1000),
                name: "ann".to_owned(),
            },
            may_change,
            rounds: Arc::new(AtomicU32::new(1)),
        },
    };
    for path in ["apply", "rollback", "override", "confirm", "trace"] {
        let (one, mut other) = tokio::io::duplex(64 * 1024);
        let routes =
            TowerToHyperService::new(api(watch::channel(status(1)).1, desk(false), Router::new()));
        let connection = http1::Builder::new()
            .keep_alive(false)
            .serve_connection(TokioIo::new(one), routes);
        let _serving = tokio::spawn(connection);
        let request =
            format!("POST /v1/{path} HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{{}}");
        other.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        other.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 403 "), "{path}: {answer}");
        assert!(answer.contains("ann may look and not change"), "{answer}");
    }
    assert!(asked.try_recv().is_err());
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
