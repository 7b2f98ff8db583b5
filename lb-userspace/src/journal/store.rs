//! The journal's file: an `SQLite` database in WAL mode, so that readers never hold the writer up.

use std::path::{Path, PathBuf};

use rusqlite::{Connection, Row, named_params, params};
use serde::Serialize;
use serde_json::Value;
use thiserror::Error;

use super::{Event, path};
use crate::sqlite::{self, Opened};

/// The layout of the file that this version reads and writes.
const VERSION: i64 = 1;
/// The part of the events that goes at once where the file is too large.
const SHARE: u64 = 10;

/// Events are added and, when they are old, removed; nothing changes them.
const LAYOUT: &str = "
    CREATE TABLE events (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        at_ms INTEGER NOT NULL,
        kind TEXT NOT NULL,
        level TEXT NOT NULL,
        service TEXT,
        backend TEXT,
        generation INTEGER NOT NULL,
        actor TEXT NOT NULL,
        message TEXT NOT NULL,
        detail TEXT NOT NULL
    ) STRICT;
    CREATE INDEX events_by_time ON events (at_ms);
    CREATE TRIGGER events_do_not_change BEFORE UPDATE ON events
        BEGIN SELECT RAISE(ABORT, 'the journal is append-only'); END;
    PRAGMA user_version = 1;
";

/// Why the journal could not be read or written.
#[derive(Debug, Error)]
pub enum Error {
    /// There is none.
    #[error(
        "there is no journal at {}: it begins with the first 'evenkeel run'; name the state directory \
         with '--state DIRECTORY' where it is another one",
        .0.display()
    )]
    Missing(PathBuf),
    /// Its folder cannot be had.
    #[error("cannot make {}: {source}", folder.display())]
    Folder {
        /// The folder.
        folder: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A newer version made it.
    #[error(
        "{} was made by a newer evenkeel (its layout is {found}, this one knows {VERSION}): use that \
         version, or move the file away",
        path.display()
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its layout.
        found: i64,
    },
    /// `SQLite` refused.
    #[error("the journal {}: {source}", path.display())]
    Sqlite {
        /// The file.
        path: PathBuf,
        /// Why.
        source: rusqlite::Error,
    },
}

impl Error {
    /// Whether the file is no journal any more.
    pub(super) fn is_damage(&self) -> bool {
        matches!(self, Self::Sqlite { source, .. } if sqlite::is_damage(source))
    }
}

/// A journal to write to.
#[derive(Debug)]
pub(super) struct Store {
    connection: Connection,
    path: PathBuf,
}

impl Store {
    /// Opens the journal of a state directory, which need not exist yet.
    pub(super) fn open(directory: &Path) -> Result<Self, Error> {
        sqlite::make_folder(directory).map_err(|source| Error::Folder {
            folder: directory.to_owned(),
            source,
        })?;
        let path = path(directory);
        match sqlite::open(&path, LAYOUT, VERSION) {
            Ok(Opened::Ready(connection)) => Ok(Self { connection, path }),
            Ok(Opened::Other(found)) => Err(Error::Newer { path, found }),
            // It is laid out by now.
            Ok(Opened::Empty) => Err(Error::Missing(path)),
            Err(source) => Err(Error::Sqlite { path, source }),
        }
    }

    /// Adds events: all of them or none.
    pub(super) fn append(&mut self, events: &[Event]) -> Result<(), Error> {
        append(&mut self.connection, events).map_err(|source| self.refused(source))
    }

    /// Removes events from before a moment, and the oldest while the file is too large. Answers
    /// how many went.
    pub(super) fn prune(&mut self, before_ms: u64, max_bytes: u64) -> Result<u64, Error> {
        prune(&self.connection, before_ms, max_bytes).map_err(|source| self.refused(source))
    }

    fn refused(&self, source: rusqlite::Error) -> Error {
        Error::Sqlite {
            path: self.path.clone(),
            source,
        }
    }
}

/// Moves a damaged journal out of the way, and answers where to.
pub(super) fn set_aside(directory: &Path, now_ms: u64) -> std::io::Result<PathBuf> {
    let path = path(directory);
    let aside = sqlite::named(&path, &format!(".damaged-{now_ms}"));
    sqlite::rename(&path, &aside)?;
    Ok(aside)
}

/// Adds one event to the journal of a state directory, beside whoever else writes to it.
///
/// # Errors
/// Where the file cannot be opened or written.
pub fn append_one(directory: &Path, event: &Event) -> Result<(), Error> {
    Store::open(directory)?.append(std::slice::from_ref(event))
}

fn append(connection: &mut Connection, events: &[Event]) -> rusqlite::Result<()> {
    let transaction = connection.transaction()?;
    {
        let mut insert = transaction.prepare_cached(
            "INSERT INTO events (at_ms, kind, level, service, backend, generation, actor, message, \
             detail) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
        )?;
        for event in events {
            insert.execute(params![
                event.at_ms.cast_signed(),
                event.kind,
                event.level,
                event.service,
                event.backend,
                event.generation.cast_signed(),
                event.actor,
                event.message,
                event.detail.to_string(),
            ])?;
        }
    }
    transaction.commit()
}

fn prune(connection: &Connection, before_ms: u64, max_bytes: u64) -> rusqlite::Result<u64> {
    let mut gone = connection.execute(
        "DELETE FROM events WHERE at_ms < ?1",
        [before_ms.cast_signed()],
    )?;
    loop {
        let count: u64 = connection.query_row("SELECT count(*) FROM events", [], |row| {
            row.get(0).map(i64::unsigned_abs)
        })?;
        if sqlite::bytes(connection)? <= max_bytes || count == 0 {
            break;
        }
        gone += connection.execute(
            "DELETE FROM events WHERE id IN (SELECT id FROM events ORDER BY id LIMIT ?1)",
            [count.div_ceil(SHARE).cast_signed()],
        )?;
    }
    if gone > 0 {
        sqlite::give_back(connection)?;
    }
    Ok(gone as u64)
}

/// Which events are wanted; what is not given excludes nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Not before this moment, in milliseconds since the Unix epoch.
    pub since_ms: Option<u64>,
    /// Before this moment.
    pub until_ms: Option<u64>,
    /// About this service.
    pub service: Option<String>,
    /// About this backend.
    pub backend: Option<String>,
    /// Of this kind, by its word.
    pub kind: Option<String>,
    /// Of one of these levels, by their words; none for all.
    pub levels: Vec<&'static str>,
}

/// An event as it stands in the journal. A newer version's words are kept as they are.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Record {
    /// Its number; later events have larger ones.
    pub id: i64,
    /// When, in milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// What it is about.
    pub kind: String,
    /// How much it matters.
    pub level: String,
    /// The service, where it is about one.
    pub service: Option<String>,
    /// The backend, where it is about one.
    pub backend: Option<String>,
    /// The publication that packets followed; zero where none did.
    pub generation: u64,
    /// Who did it.
    pub actor: String,
    /// What a person should read.
    pub message: String,
    /// The same for programs.
    pub detail: Value,
}

impl Record {
    fn of(row: &Row<'_>) -> rusqlite::Result<Self> {
        let detail: String = row.get("detail")?;
        Ok(Self {
            id: row.get("id")?,
            at_ms: row.get::<_, i64>("at_ms")?.cast_unsigned(),
            kind: row.get("kind")?,
            level: row.get("level")?,
            service: row.get("service")?,
            backend: row.get("backend")?,
            generation: row.get::<_, i64>("generation")?.cast_unsigned(),
            actor: row.get("actor")?,
            message: row.get("message")?,
            detail: serde_json::from_str(&detail).unwrap_or(Value::String(detail)),
        })
    }
}

/// A journal to read, while a controller may be writing to it.
#[derive(Debug)]
pub struct Reader {
    connection: Connection,
    path: PathBuf,
}

impl Reader {
    /// Opens the journal of a state directory.
    ///
    /// # Errors
    /// Where there is none, it is a newer version's, or this user may not read it.
    pub fn open(directory: &Path) -> Result<Self, Error> {
        let path = path(directory);
        if matches!(path.try_exists(), Ok(false)) {
            return Err(Error::Missing(path));
        }
        match sqlite::open_to_read(&path, VERSION) {
            Ok(Opened::Ready(connection)) => Ok(Self { connection, path }),
            Ok(Opened::Empty) => Err(Error::Missing(path)),
            Ok(Opened::Other(found)) => Err(Error::Newer { path, found }),
            Err(source) => Err(Error::Sqlite { path, source }),
        }
    }

    /// The last events that are wanted, at most so many, the oldest first.
    ///
    /// # Errors
    /// Where the file cannot be read.
    pub fn last(&self, filter: &Filter, most: u32) -> Result<Vec<Record>, Error> {
        let mut records = self.select(filter, 0, most, "DESC")?;
        records.reverse();
        Ok(records)
    }

    /// The events that are wanted after one of them, at most so many, the oldest first.
    ///
    /// # Errors
    /// Where the file cannot be read.
    pub fn after(&self, filter: &Filter, id: i64, most: u32) -> Result<Vec<Record>, Error> {
        self.select(filter, id, most, "ASC")
    }

    fn select(
        &self,
        filter: &Filter,
        after: i64,
        most: u32,
        order: &str,
    ) -> Result<Vec<Record>, Error> {
        let levels = serde_json::to_string(&filter.levels).expect("words are JSON");
        let select = || {
            let mut select = self.connection.prepare_cached(&format!(
                "SELECT * FROM events WHERE id > :after \
                 AND (:since IS NULL OR at_ms >= :since) AND (:until IS NULL OR at_ms < :until) \
                 AND (:service IS NULL OR service = :service) \
                 AND (:backend IS NULL OR backend = :backend) \
                 AND (:kind IS NULL OR kind = :kind) \
                 AND (:levels = '[]' OR level IN (SELECT value FROM json_each(:levels))) \
                 ORDER BY id {order} LIMIT :most"
            ))?;
            let rows = select.query_map(
                named_params! {
                    ":after": after,
                    ":since": filter.since_ms.map(u64::cast_signed),
                    ":until": filter.until_ms.map(u64::cast_signed),
                    ":service": filter.service,
                    ":backend": filter.backend,
                    ":kind": filter.kind,
                    ":levels": levels,
                    ":most": most,
                },
                Record::of,
            )?;
            rows.collect::<rusqlite::Result<Vec<Record>>>()
        };
        select().map_err(|source| Error::Sqlite {
            path: self.path.clone(),
            source,
        })
    }
}

#[cfg(test)]
mod tests;
