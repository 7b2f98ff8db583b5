//! What is not sent yet, and what was told, on disk: an `SQLite` file of its own beside the journal.
//!
//! A disk that takes nothing costs what happens between now and the next start, and is told by
//! [`Spool::failure`]; all goes on from memory.

use std::{
    collections::{BTreeMap, VecDeque},
    fs, io,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
};

use log::{error, info};
use rusqlite::{Connection, Transaction, params};

use super::{
    alert::{Item, Key, Notification},
    outbox::{Decision, Outbox, Told},
};
use crate::{causes::with_causes, sqlite};

/// The file in the state directory.
const FILE: &str = "notify.db";
/// The layout of the file: another one is begun anew, because what it holds is derived again.
const LAYOUT: i64 = 1;

const SCHEMA: &str = "
CREATE TABLE queue (receiver TEXT, id INTEGER, body TEXT NOT NULL, PRIMARY KEY (receiver, id));
CREATE TABLE told (receiver TEXT, key TEXT, item TEXT NOT NULL, at_ms INTEGER NOT NULL,
                   PRIMARY KEY (receiver, key));
CREATE TABLE taken (receiver TEXT PRIMARY KEY, at_ms INTEGER NOT NULL);
";

/// Why the disk took nothing.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("cannot create {}", folder.display())]
    Folder { folder: PathBuf, source: io::Error },
    #[error("cannot keep notifications in {}", path.display())]
    Database {
        path: PathBuf,
        source: rusqlite::Error,
    },
}

/// What is known of a receiver.
#[derive(Debug, Default)]
pub(super) struct Known {
    pub(super) told: BTreeMap<Key, Told>,
    pub(super) queue: VecDeque<Notification>,
    /// When it last took something, in milliseconds since the Unix epoch.
    pub(super) taken_ms: Option<u64>,
}

/// The file.
#[derive(Debug)]
pub(super) struct Spool {
    directory: PathBuf,
    connection: Option<Connection>,
    failure: Option<String>,
}

impl Spool {
    /// Opens the file, or begins a new one; what is wrong is told by [`Spool::failure`].
    pub(super) fn open(directory: &Path) -> Self {
        let mut spool = Self {
            directory: directory.to_owned(),
            connection: None,
            failure: None,
        };
        let opened = spool.connect();
        spool.outcome(opened);
        spool
    }

    fn path(&self) -> PathBuf {
        self.directory.join(FILE)
    }

    fn connect(&mut self) -> Result<(), Error> {
        if self.connection.is_some() {
            return Ok(());
        }
        let made = fs::DirBuilder::new()
            .recursive(true)
            .mode(0o750)
            .create(&self.directory);
        made.map_err(|source| Error::Folder {
            folder: self.directory.clone(),
            source,
        })?;
        let connection = match self.try_open() {
            // What it held is derived again, but for what was not sent of the past.
            Err(e) if sqlite::is_damage(&e) => {
                error!("{} is damaged and begins anew: {e}", self.path().display());
                sqlite::remove(&self.path());
                self.try_open()
            }
            other => other,
        };
        self.connection = Some(connection.map_err(|source| self.error(source))?);
        Ok(())
    }

    fn try_open(&self) -> rusqlite::Result<Connection> {
        let mut connection = Connection::open(self.path())?;
        // Only what the disk has may be called sent: a crash of the host repeats, and loses nothing.
        connection.execute_batch("PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL;")?;
        let layout = sqlite::version(&connection)?;
        if layout != LAYOUT {
            let change = connection.transaction()?;
            change.execute_batch(
                "DROP TABLE IF EXISTS queue; DROP TABLE IF EXISTS told; DROP TABLE IF EXISTS taken;",
            )?;
            change.execute_batch(SCHEMA)?;
            change.execute_batch(&format!("PRAGMA user_version = {LAYOUT}"))?;
            change.commit()?;
        }
        Ok(connection)
    }

    fn error(&self, source: rusqlite::Error) -> Error {
        Error::Database {
            path: self.path(),
            source,
        }
    }

    /// Why nothing is written; `None` where it is.
    pub(super) fn failure(&self) -> Option<&str> {
        self.failure.as_deref()
    }

    /// What is known of a receiver; nothing where the file cannot be read.
    pub(super) fn known(&mut self, receiver: &str) -> Known {
        let read = self.connection.as_ref().map(|c| read(c, receiver));
        match read.transpose() {
            Ok(known) => known.unwrap_or_default(),
            Err(source) => {
                let error = self.error(source);
                self.outcome(Err(error));
                Known::default()
            }
        }
    }

    /// The highest number that was given.
    pub(super) fn last_id(&self) -> u64 {
        let highest = |c: &Connection| {
            c.query_row("SELECT coalesce(max(id), 0) FROM queue", [], |row| {
                row.get(0)
            })
        };
        let read = self.connection.as_ref().map(highest);
        let id: i64 = read.and_then(Result::ok).unwrap_or(0);
        id.unsigned_abs()
    }

    /// Forgets receivers that are not configured any more.
    pub(super) fn keep(&mut self, receivers: &[&str]) {
        let list: Vec<String> = receivers.iter().map(|name| (*name).to_owned()).collect();
        let json = serde_json::Value::from(list).to_string();
        self.change(&[], |change| {
            for table in ["queue", "told", "taken"] {
                change.execute(
                    &format!(
                        "DELETE FROM {table} WHERE receiver NOT IN (SELECT value FROM json_each(?1))"
                    ),
                    [&json],
                )?;
            }
            Ok(())
        });
    }

    /// Writes down what was decided.
    pub(super) fn decided(&mut self, all: &[(&str, &Outbox)], receiver: &str, decision: &Decision) {
        self.change(all, |change| {
            for key in &decision.forget {
                forget(change, receiver, key)?;
            }
            for notification in &decision.send {
                enqueue(change, receiver, notification)?;
                for item in &notification.items {
                    if item.ended_ms.is_some() {
                        forget(change, receiver, &item.key)?;
                    } else {
                        tell(change, receiver, item, notification.at_ms)?;
                    }
                }
            }
            Ok(())
        });
    }

    /// Writes down that a notification waits no longer, and when the receiver took it, if it did.
    pub(super) fn done(
        &mut self,
        all: &[(&str, &Outbox)],
        receiver: &str,
        id: u64,
        taken_ms: Option<u64>,
    ) {
        self.change(all, |change| {
            change.execute(
                "DELETE FROM queue WHERE receiver = ?1 AND id = ?2",
                params![receiver, id.cast_signed()],
            )?;
            if let Some(at) = taken_ms {
                taken(change, receiver, at)?;
            }
            Ok(())
        });
    }

    /// Writes down that a receiver took something.
    pub(super) fn taken(&mut self, all: &[(&str, &Outbox)], receiver: &str, at_ms: u64) {
        self.change(all, |change| taken(change, receiver, at_ms));
    }

    /// Writes all anew, where an earlier change was not written.
    pub(super) fn catch_up(&mut self, all: &[(&str, &Outbox)]) {
        if self.failure.is_some() {
            self.change(all, |_| Ok(()));
        }
    }

    /// Makes a change; after one that failed, everything is written anew with it.
    fn change(
        &mut self,
        all: &[(&str, &Outbox)],
        make: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<()>,
    ) {
        let anew = self.failure.is_some();
        let result = self.connect().and_then(|()| {
            let Some(connection) = &mut self.connection else {
                return Ok(());
            };
            let written = (|| {
                let change = connection.transaction()?;
                if anew {
                    write_all(&change, all)?;
                } else {
                    make(&change)?;
                }
                change.commit()
            })();
            written.map_err(|source| self.error(source))
        });
        self.outcome(result);
    }

    fn outcome(&mut self, result: Result<(), Error>) {
        match result {
            Ok(()) => {
                if self.failure.take().is_some() {
                    info!("notifications are kept on disk again");
                }
            }
            Err(e) => {
                // A fresh start next time: the file may be another one by then.
                self.connection = None;
                let why = with_causes(&e);
                if self.failure.replace(why.clone()).is_none() {
                    error!("notifications that wait are kept in memory alone: {why}");
                }
            }
        }
    }
}

/// Written as JSON, which plain data always has.
fn json(value: &impl serde::Serialize) -> String {
    serde_json::to_string(value).expect("plain data is JSON")
}

fn enqueue(change: &Transaction<'_>, receiver: &str, one: &Notification) -> rusqlite::Result<()> {
    change.execute(
        "INSERT OR REPLACE INTO queue VALUES (?1, ?2, ?3)",
        params![receiver, one.id.cast_signed(), json(one)],
    )?;
    Ok(())
}

fn tell(change: &Transaction<'_>, receiver: &str, item: &Item, at_ms: u64) -> rusqlite::Result<()> {
    change.execute(
        "INSERT OR REPLACE INTO told VALUES (?1, ?2, ?3, ?4)",
        params![receiver, json(&item.key), json(item), at_ms.cast_signed()],
    )?;
    Ok(())
}

fn forget(change: &Transaction<'_>, receiver: &str, key: &Key) -> rusqlite::Result<()> {
    change.execute(
        "DELETE FROM told WHERE receiver = ?1 AND key = ?2",
        params![receiver, json(key)],
    )?;
    Ok(())
}

fn taken(change: &Transaction<'_>, receiver: &str, at_ms: u64) -> rusqlite::Result<()> {
    change.execute(
        "INSERT OR REPLACE INTO taken VALUES (?1, ?2)",
        params![receiver, at_ms.cast_signed()],
    )?;
    Ok(())
}

fn write_all(change: &Transaction<'_>, all: &[(&str, &Outbox)]) -> rusqlite::Result<()> {
    change.execute_batch("DELETE FROM queue; DELETE FROM told;")?;
    for (receiver, outbox) in all {
        for notification in outbox.queue() {
            enqueue(change, receiver, notification)?;
        }
        for told in outbox.told().values() {
            tell(change, receiver, &told.item, told.at_ms)?;
        }
    }
    Ok(())
}

fn read(connection: &Connection, receiver: &str) -> rusqlite::Result<Known> {
    let mut known = Known::default();
    let mut queue = connection.prepare("SELECT body FROM queue WHERE receiver = ?1 ORDER BY id")?;
    let bodies = queue.query_map([receiver], |row| row.get::<_, String>(0))?;
    for body in bodies {
        // What an older version wrote and this one does not know is derived again.
        known
            .queue
            .extend(serde_json::from_str::<Notification>(&body?).ok());
    }
    let mut told = connection.prepare("SELECT item, at_ms FROM told WHERE receiver = ?1")?;
    let rows = told.query_map([receiver], |row| {
        Ok((row.get::<_, String>(0)?, row.get::<_, i64>(1)?))
    })?;
    for row in rows {
        let (item, at_ms) = row?;
        if let Ok(item) = serde_json::from_str::<Item>(&item) {
            let at_ms = at_ms.unsigned_abs();
            known.told.insert(item.key.clone(), Told { item, at_ms });
        }
    }
    let mut taken = connection.prepare("SELECT at_ms FROM taken WHERE receiver = ?1")?;
    let at: Option<i64> = taken
        .query_map([receiver], |row| row.get(0))?
        .next()
        .transpose()?;
    known.taken_ms = at.map(i64::unsigned_abs);
    Ok(known)
}

#[cfg(test)]
mod tests;
