//! What the `SQLite` files of the state directory have in common.

use std::{
    ffi::OsString,
    fs::{self, Permissions},
    io,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use rusqlite::{Connection, ErrorCode, OpenFlags, TransactionBehavior};

/// How long a transaction waits for another process's.
const PATIENCE: Duration = Duration::from_secs(2);

/// What lies beside a file while it is open: its parts, and nothing by themselves.
const BESIDE: [&str; 2] = ["-wal", "-shm"];

/// A file that was opened.
#[derive(Debug)]
pub(crate) enum Opened {
    /// It is of the layout that was asked for.
    Ready(Connection),
    /// There is nothing in it yet.
    Empty,
    /// It is of another layout.
    Other(i64),
}

/// Makes a state directory where it is missing, for its owner and group alone: addresses of clients
/// may be in it.
pub(crate) fn make_folder(directory: &Path) -> io::Result<()> {
    if directory.exists() {
        return Ok(());
    }
    fs::create_dir_all(directory)?;
    fs::set_permissions(directory, Permissions::from_mode(0o750))
}

/// Opens a file to write to, in WAL mode, so that readers never hold the writer up. One that is new
/// is laid out by `layout`, which says its version.
///
/// A crash of the host may cost what was written last, never the file.
pub(crate) fn open(path: &Path, layout: &str, version: i64) -> rusqlite::Result<Opened> {
    let mut connection = Connection::open(path)?;
    connection.busy_timeout(PATIENCE)?;
    connection.execute_batch(
        "PRAGMA auto_vacuum = INCREMENTAL; PRAGMA journal_mode = WAL; \
         PRAGMA synchronous = NORMAL;",
    )?;
    let change = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    match self::version(&change)? {
        0 => change.execute_batch(layout)?,
        found if found == version => {}
        found => return Ok(Opened::Other(found)),
    }
    change.commit()?;
    Ok(Opened::Ready(connection))
}

/// Opens a file that another process may be writing to.
pub(crate) fn open_to_read(path: &Path, version: i64) -> rusqlite::Result<Opened> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(PATIENCE)?;
    Ok(match self::version(&connection)? {
        0 => Opened::Empty,
        found if found == version => Opened::Ready(connection),
        found => Opened::Other(found),
    })
}

/// The version of a file's layout; zero where there is nothing in it.
pub(crate) fn version(connection: &Connection) -> rusqlite::Result<i64> {
    connection.query_row("PRAGMA user_version", [], |row| row.get(0))
}

/// Whether a file is no database any more.
pub(crate) fn is_damage(error: &rusqlite::Error) -> bool {
    matches!(
        error.sqlite_error_code(),
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase)
    )
}

/// The bytes of a file that hold something.
pub(crate) fn bytes(connection: &Connection) -> rusqlite::Result<u64> {
    let number = |pragma: &str| -> rusqlite::Result<u64> {
        connection.query_row(pragma, [], |row| row.get(0).map(i64::unsigned_abs))
    };
    let pages = number("PRAGMA page_count")? - number("PRAGMA freelist_count")?;
    Ok(pages * number("PRAGMA page_size")?)
}

/// Gives what holds nothing back to the disk.
pub(crate) fn give_back(connection: &Connection) -> rusqlite::Result<()> {
    // A step for each page.
    let mut vacuum = connection.prepare("PRAGMA incremental_vacuum")?;
    let mut pages = vacuum.query([])?;
    while pages.next()?.is_some() {}
    connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
}

/// Removes a file with what lies beside it. What cannot go shows when it is opened next.
pub(crate) fn remove(path: &Path) {
    let _ = fs::remove_file(path);
    for suffix in BESIDE {
        let _ = fs::remove_file(named(path, suffix));
    }
}

/// Gives a file with what lies beside it another name.
pub(crate) fn rename(from: &Path, to: &Path) -> io::Result<()> {
    fs::rename(from, to)?;
    for suffix in BESIDE {
        // They need not be there.
        let _ = fs::rename(named(from, suffix), named(to, suffix));
    }
    Ok(())
}

/// A path with something behind its name.
pub(crate) fn named(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    PathBuf::from(name)
}
