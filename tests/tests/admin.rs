//! The admin socket answers root, its own user and its group, and nobody else.

use std::{
    fs::{self, Permissions},
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
};

use lb_userspace::{
    admin::{
        proto::{
            Journal, Notify, Repairs, Status, Tables, Tracking, change::Configuration, measured,
        },
        server::Server,
    },
    model::AdminConfig,
};
use tempfile::TempDir;
use tokio::{
    runtime::Runtime,
    sync::{mpsc, watch},
};

/// A group number that needs no entry in the group database.
const GROUP: u32 = 47_110;
/// Another one.
const CHANGE_GROUP: u32 = 47_111;
const NOBODY: &str = "--reuid=65534";

/// A server in the background, ended with its runtime.
struct Served {
    folder: TempDir,
    _runtime: Runtime,
    /// Kept, as a controller keeps it.
    _latest: watch::Sender<Arc<Status>>,
}

impl Served {
    fn start() -> Self {
        assert!(
            rustix::process::geteuid().is_root(),
            "this test takes other users' places: run it as root"
        );
        let folder = tempfile::tempdir().expect("a temporary folder");
        // Only the socket's own permissions shall decide.
        fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).expect("chmod");
        let config = AdminConfig {
            socket: folder.path().join("s"),
            group: Some(GROUP.to_string()),
            change_group: Some(CHANGE_GROUP.to_string()),
        };
        let server = Server::bind(&config).expect("the socket");
        let (latest, receiver) = watch::channel(Arc::new(status()));
        let runtime = Runtime::new().expect("a runtime");
        runtime.spawn(server.serve(receiver, mpsc::channel(1).0, std::future::pending()));
        Self {
            folder,
            _runtime: runtime,
            _latest: latest,
        }
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("s")
    }
}

fn status() -> Status {
    Status {
        version: "test".to_owned(),
        pid: 1,
        started_at_ms: 0,
        now_ms: 0,
        config_file: String::new(),
        config_sha256: String::new(),
        configuration: Configuration::default(),
        waiting_overrides: Vec::new(),
        generation: 1,
        published_at_ms: None,
        interfaces: Vec::new(),
        tables: Tables {
            as_intended: true,
            checked_at_ms: 0,
            differing_slots: 0,
            differences: Vec::new(),
            repairs: Repairs::default(),
        },
        exits: [].into(),
        tracking: Tracking::default(),
        journal: Journal::default(),
        refused: None,
        alerts: Vec::new(),
        notify: Notify::default(),
        publications: measured::Publications::default(),
        incidents: Vec::new(),
        audit: measured::Audit::default(),
        history: measured::History::default(),
        http: measured::Http::default(),
        drill: None,
        services: Vec::new(),
    }
}

/// Asks as another user; the HTTP status code (000 without an answer) and the body.
fn ask(socket: &Path, identity: &[&str]) -> (String, String) {
    curl(socket, identity, &["http://evenkeel/v1/status"])
}

fn curl(socket: &Path, identity: &[&str], wish: &[&str]) -> (String, String) {
    let output = Command::new("setpriv")
        .args(identity)
        .args([
            "curl",
            "--silent",
            "--max-time",
            "10",
            "--write-out",
            "\n%{http_code}",
        ])
        .arg("--unix-socket")
        .arg(socket)
        .args(wish)
        .output()
        .expect("setpriv and curl");
    let text = String::from_utf8(output.stdout).expect("text");
    let (body, code) = text.rsplit_once('\n').unwrap_or_else(|| {
        panic!(
            "curl did not run: {}",
            String::from_utf8_lossy(&output.stderr)
        )
    });
    (code.to_owned(), body.to_owned())
}

#[test]
fn strangers_are_kept_out_by_the_file_and_by_their_credentials() {
    let served = Served::start();
    let socket = served.socket();
    let found = fs::metadata(&socket).expect("the socket");
    assert_eq!(
        (found.mode() & 0o7777, found.uid(), found.gid()),
        (0o660, 0, GROUP)
    );
    let stranger = [NOBODY, "--regid=65534", "--clear-groups"];

    assert_eq!(ask(&socket, &stranger).0, "000");
    // Somebody opens the file to everybody: the credentials still decide.
    fs::set_permissions(&socket, Permissions::from_mode(0o666)).expect("chmod");
    let (code, body) = ask(&socket, &stranger);
    assert_eq!(code, "403");
    assert!(
        body.starts_with(r#"{"error":"user 65534 may not talk to this controller"#),
        "{body}"
    );
}

#[test]
fn root_and_members_of_the_group_are_answered() {
    let served = Served::start();
    let socket = served.socket();
    let primary = format!("--regid={GROUP}");
    let supplementary = format!("--groups={GROUP}");
    for identity in [
        vec!["--reuid=0", "--clear-groups"],
        vec![NOBODY, &primary, "--clear-groups"],
        vec![NOBODY, "--regid=65534", &supplementary],
    ] {
        let (code, body) = ask(&socket, &identity);
        assert_eq!(code, "200", "{identity:?}: {body}");
        assert!(body.contains(r#""generation":1"#), "{identity:?}: {body}");
    }
}

#[test]
fn members_of_one_group_may_ask_and_those_of_the_other_may_change() {
    let served = Served::start();
    let socket = served.socket();
    let supplementary = format!("--groups={GROUP}");
    let member = [NOBODY, "--regid=65534", &supplementary];
    let both = format!("--groups={GROUP},{CHANGE_GROUP}");
    let changing = [NOBODY, "--regid=65534", &both];
    let root = ["--reuid=0", "--clear-groups"];
    let post = |identity: &[&str], path: &str| {
        let url = format!("http://evenkeel/v1/{path}");
        curl(&socket, identity, &["--data", "null", &url])
    };
    for path in ["apply", "rollback", "confirm", "override", "log"] {
        let (code, body) = post(&member, path);
        assert_eq!(code, "403", "{path}: {body}");
        assert!(body.contains("may look and not change"), "{body}");
        // Nobody answers behind this socket, so whoever may ask is told that much.
        for who in [&root[..], &changing] {
            let (code, body) = post(who, path);
            assert_ne!(code, "403", "{path}: {body}");
            assert_ne!(code, "000", "{path}: {body}");
        }
    }
    let plan = r#"{"file":"","text":""}"#;
    let asked = ["--data", plan, "http://evenkeel/v1/plan"];
    let (code, body) = curl(&socket, &member, &asked);
    assert_eq!(code, "503", "{body}");
}
