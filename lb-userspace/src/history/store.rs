//! The file: an `SQLite` database in WAL mode, so that readers never hold the writer up.

use std::path::{Path, PathBuf};

use rusqlite::{Connection, OptionalExtension as _, params};

use super::{
    SPANS, Span,
    chunk::{Chunk, POINTS, Sample},
    path,
};
use crate::sqlite::{self, Opened};

/// The layout of the file that this version reads and writes.
const VERSION: i64 = 1;

const LAYOUT: &str = "
    CREATE TABLE chunks (
        step_s INTEGER NOT NULL,
        service TEXT NOT NULL,
        start_s INTEGER NOT NULL,
        points BLOB NOT NULL,
        PRIMARY KEY (step_s, service, start_s)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX chunks_by_time ON chunks (step_s, start_s);
    PRAGMA user_version = 1;
";

/// Why history could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is none.
    #[error(
        "there is no history at {}: it begins with the first 'evenkeel run'; name the state directory \
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
        #[source]
        source: std::io::Error,
    },
    /// A newer version made it.
    #[error(
        "{} was made by a newer evenkeel (its layout is {found}, this one knows {VERSION}): use that \
         version, or remove the file",
        path.display()
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its layout.
        found: i64,
    },
    /// `SQLite` refused.
    #[error("the history {}: {source}", path.display())]
    Sqlite {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: rusqlite::Error,
    },
    /// Points are damaged.
    #[error("the history {}: a part of it is damaged: {source}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

impl Error {
    /// Whether the file is no history any more.
    pub(super) fn is_damage(&self) -> bool {
        matches!(self, Self::Sqlite { source, .. } if sqlite::is_damage(source))
    }
}

/// A chunk with its place in time.
pub(super) struct Placed<'a> {
    pub(super) span: Span,
    pub(super) service: &'a str,
    pub(super) start_s: u64,
    pub(super) chunk: &'a Chunk,
    /// Whether another controller may have written of the same time.
    pub(super) shared: bool,
}

/// History to write to.
#[derive(Debug)]
pub(super) struct Store {
    connection: Connection,
    path: PathBuf,
}

impl Store {
    /// Opens the history of a state directory, which need not exist yet.
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

    /// Writes chunks in the place of those that are there: all of them or none.
    pub(super) fn write(&mut self, chunks: &[Placed<'_>]) -> Result<(), Error> {
        let damaged = |source| Error::Damaged {
            path: self.path.clone(),
            source,
        };
        let mut packed = Vec::with_capacity(chunks.len());
        for placed in chunks {
            let before = if placed.shared {
                found(&self.connection, placed).map_err(|source| self.refused(source))?
            } else {
                None
            };
            // What cannot be read is replaced.
            let before = before.and_then(|before| Chunk::unpack(&before).ok());
            let joined = before.map(|before| placed.chunk.after(&before));
            packed.push(
                joined
                    .as_ref()
                    .unwrap_or(placed.chunk)
                    .pack()
                    .map_err(damaged)?,
            );
        }
        replace(&mut self.connection, chunks, &packed).map_err(|source| self.refused(source))
    }

    /// Removes what is older than it is kept, and the oldest of what is kept longest while the file is
    /// too large.
    pub(super) fn prune(&mut self, now_s: u64, max_bytes: u64) -> Result<(), Error> {
        prune(&self.connection, now_s, max_bytes).map_err(|source| self.refused(source))
    }

    fn refused(&self, source: rusqlite::Error) -> Error {
        Error::Sqlite {
            path: self.path.clone(),
            source,
        }
    }
}

fn found(connection: &Connection, placed: &Placed<'_>) -> rusqlite::Result<Option<Vec<u8>>> {
    let mut select = connection.prepare_cached(
        "SELECT points FROM chunks WHERE step_s = ?1 AND service = ?2 AND start_s = ?3",
    )?;
    let key = params![
        placed.span.step_s.cast_signed(),
        placed.service,
        placed.start_s.cast_signed()
    ];
    select.query_row(key, |row| row.get(0)).optional()
}

fn replace(
    connection: &mut Connection,
    chunks: &[Placed<'_>],
    packed: &[Vec<u8>],
) -> rusqlite::Result<()> {
    let transaction = connection.transaction()?;
    {
        let mut insert = transaction.prepare_cached(
            "INSERT OR REPLACE INTO chunks (step_s, service, start_s, points) \
             VALUES (?1, ?2, ?3, ?4)",
        )?;
        for (placed, points) in chunks.iter().zip(packed) {
            insert.execute(params![
                placed.span.step_s.cast_signed(),
                placed.service,
                placed.start_s.cast_signed(),
                points
            ])?;
        }
    }
    transaction.commit()
}

fn prune(connection: &Connection, now_s: u64, max_bytes: u64) -> rusqlite::Result<()> {
    let mut gone = 0;
    for span in SPANS {
        // As long as one point of a chunk is young enough, all of it stays.
        let before = now_s.saturating_sub(span.kept_s + POINTS * span.step_s);
        gone += connection.execute(
            "DELETE FROM chunks WHERE step_s = ?1 AND start_s < ?2",
            params![span.step_s.cast_signed(), before.cast_signed()],
        )?;
    }
    loop {
        if sqlite::bytes(connection)? <= max_bytes {
            break;
        }
        // The oldest moment of the coarsest span that has more than one: the finest one goes last,
        // and what was written just now never.
        let removed = connection.execute(
            "DELETE FROM chunks WHERE (step_s, start_s) = (\
                SELECT step_s, min(start_s) FROM chunks GROUP BY step_s \
                HAVING min(start_s) < max(start_s) ORDER BY step_s DESC LIMIT 1)",
            [],
        )?;
        if removed == 0 {
            break;
        }
        gone += removed;
    }
    if gone > 0 {
        sqlite::give_back(connection)?;
    }
    Ok(())
}

/// History to read, while a controller may be writing to it.
#[derive(Debug)]
pub struct Reader {
    connection: Connection,
    path: PathBuf,
}

impl Reader {
    /// Opens the history of a state directory.
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

    /// The services that something is known of, in the order of their names.
    ///
    /// # Errors
    /// Where the file cannot be read.
    pub fn services(&self) -> Result<Vec<String>, Error> {
        let select = || {
            let sql = "SELECT DISTINCT service FROM chunks ORDER BY service";
            let mut select = self.connection.prepare(sql)?;
            let rows = select.query_map([], |row| row.get(0))?;
            rows.collect::<rusqlite::Result<Vec<String>>>()
        };
        select().map_err(|source| self.refused(source))
    }

    /// The points of a service from a second on and before another, as a span has them, in order.
    ///
    /// # Errors
    /// Where the file cannot be read.
    pub fn points(
        &self,
        span: Span,
        service: &str,
        (from_s, until_s): (u64, u64),
    ) -> Result<Vec<(u64, Sample)>, Error> {
        let select = || {
            let mut select = self.connection.prepare_cached(
                "SELECT start_s, points FROM chunks WHERE step_s = ?1 AND service = ?2 \
                 AND start_s > ?3 AND start_s < ?4 ORDER BY start_s",
            )?;
            let reaching = from_s.saturating_sub(POINTS * span.step_s);
            let key = params![
                span.step_s.cast_signed(),
                service,
                // One before is asked for as well: a signed number can be less than zero.
                reaching.cast_signed() - 1,
                until_s.cast_signed()
            ];
            let row = |row: &rusqlite::Row<'_>| Ok((row.get::<_, i64>(0)?, row.get(1)?));
            select
                .query_map(key, row)?
                .collect::<rusqlite::Result<Vec<(i64, Vec<u8>)>>>()
        };
        let rows = select().map_err(|source| self.refused(source))?;
        let mut points = Vec::new();
        for (start_s, packed) in rows {
            let chunk = Chunk::unpack(&packed).map_err(|source| Error::Damaged {
                path: self.path.clone(),
                source,
            })?;
            let at = |place: u8| start_s.cast_unsigned() + u64::from(place) * span.step_s;
            let samples = chunk.samples().map(|(place, sample)| (at(place), sample));
            points.extend(samples.filter(|(at, _)| (from_s..until_s).contains(at)));
        }
        Ok(points)
    }

    fn refused(&self, source: rusqlite::Error) -> Error {
        Error::Sqlite {
            path: self.path.clone(),
            source,
        }
    }
}

#[cfg(test)]
mod tests;
