//! SQLite: receives closures over a transaction or a connection, and hands on their answers once they are durable.
//!
//! One thread writes. It takes whatever has queued up, runs every job in a savepoint of one transaction, commits with
//! `synchronous=FULL`, and only then answers them all: acknowledged means durable, and a thousand reports a second cost
//! a few dozen syncs. Readers have connections of their own and see what is committed.
//!
//! A submodule is a set of typed functions over `&rusqlite::Transaction<'_>` (to write) or `&rusqlite::Connection` (to
//! read; a transaction is one too) that return `rusqlite::Result`. They neither begin nor commit.

mod readers;
mod writer;

pub mod artifacts;
pub mod drifts;
pub mod images;
pub mod instances;
pub mod ledger;
pub mod numbers;
pub mod operators;
pub mod orders;
pub mod staged;
pub mod tokens;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rusqlite::{Connection, Transaction};

pub use writer::Weight;

/// A handle on the database; clones share it.
#[derive(Debug, Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    writer: writer::Writer,
    readers: readers::Readers,
}

/// What can go wrong with the database.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// It cannot be opened.
    #[error("open the database {}", path.display())]
    Open {
        /// Where it is.
        path: PathBuf,
        /// Why not.
        #[source]
        source: rusqlite::Error,
    },
    /// It cannot be brought to this version's tables.
    #[error("bring the database {} up to date", path.display())]
    Migrate {
        /// Where it is.
        path: PathBuf,
        /// Why not.
        #[source]
        source: Box<refinery::Error>,
    },
    /// A statement was refused.
    #[error("use the database")]
    Statement(#[from] rusqlite::Error),
    /// What was written could not be made durable, and is undone.
    #[error("make a change durable")]
    Commit(#[source] Arc<rusqlite::Error>),
    /// The collector is stopping, or the job panicked.
    #[error("the database has stopped")]
    Stopped,
}

mod embedded {
    refinery::embed_migrations!("src/store/migrations");
}

impl Store {
    /// Opens the database, making it or bringing it up to date where need be.
    ///
    /// # Errors
    /// It cannot be opened or brought up to date.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let mut connection = open_connection(path)?;
        embedded::migrations::runner()
            .run(&mut connection)
            .map_err(|source| StoreError::Migrate {
                path: path.to_owned(),
                source: Box::new(source),
            })?;
        let writer = writer::Writer::start(connection);
        Ok(Store {
            inner: Arc::new(Inner {
                writer,
                readers: readers::Readers::of(path.to_owned()),
            }),
        })
    }

    /// Runs `job` on the writer, in a savepoint of its own: an error undoes what it did. The answer comes when the
    /// change is durable.
    ///
    /// # Errors
    /// The job's own, or that the change could not be made durable.
    pub async fn write<T, E>(
        &self,
        job: impl FnOnce(&Transaction<'_>) -> Result<T, E> + Send + 'static,
    ) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
    {
        self.inner.writer.write(Weight::Ordinary, job).await
    }

    /// Like [`Store::write`], for reports: what the fault point of the tests counts.
    ///
    /// # Errors
    /// As [`Store::write`].
    pub async fn write_report<T, E>(
        &self,
        job: impl FnOnce(&Transaction<'_>) -> Result<T, E> + Send + 'static,
    ) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
    {
        self.inner.writer.write(Weight::Report, job).await
    }

    /// Runs `job` on a connection that can only read, on a thread that may block.
    ///
    /// # Errors
    /// The job's own, or that no connection could be had.
    pub async fn read<T, E>(
        &self,
        job: impl FnOnce(&Connection) -> Result<T, E> + Send + 'static,
    ) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
    {
        self.inner.readers.read(job).await
    }

    /// Finishes what is queued, and closes. Later writes answer [`StoreError::Stopped`].
    pub async fn close(&self) {
        self.inner.writer.close().await;
    }
}

fn open_connection(path: &Path) -> Result<Connection, StoreError> {
    let open = || {
        let connection = Connection::open(path)?;
        connection.execute_batch(
            "PRAGMA journal_mode = WAL;
             PRAGMA synchronous = FULL;
             PRAGMA foreign_keys = ON;
             PRAGMA busy_timeout = 10000;
             PRAGMA cache_size = -65536;
             PRAGMA journal_size_limit = 67108864;
             PRAGMA temp_store = MEMORY;",
        )?;
        connection.set_prepared_statement_cache_capacity(STATEMENTS);
        Ok(connection)
    };
    open().map_err(|source| StoreError::Open {
        path: path.to_owned(),
        source,
    })
}

/// Prepared statements that a connection keeps: more than there are in this crate.
const STATEMENTS: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_job_that_fails_undoes_what_it_did_and_leaves_the_others_alone() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(&directory.path().join("test.db")).unwrap();
        let write = |name: &'static str, fails: bool| {
            store.write(move |tx| {
                tx.execute(
                    "INSERT INTO settings (name, value) VALUES (?1, 'x')",
                    [name],
                )?;
                if fails {
                    Err(StoreError::Stopped)
                } else {
                    Ok(())
                }
            })
        };
        let (one, two, three) = tokio::join!(
            write("one", false),
            write("two", true),
            write("three", false)
        );
        assert!(one.is_ok() && two.is_err() && three.is_ok());
        let count: i64 = store
            .read(|connection| {
                Ok::<_, StoreError>(connection.query_row(
                    "SELECT count(*) FROM settings",
                    [],
                    |row| row.get(0),
                )?)
            })
            .await
            .unwrap();
        assert_eq!(count, 2);
    }

    #[tokio::test]
    async fn a_job_that_panics_hurts_only_itself() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(&directory.path().join("test.db")).unwrap();
        let hurt: Result<(), StoreError> = store.write(|_| panic!("a bug")).await;
        assert!(matches!(hurt, Err(StoreError::Stopped)));
        let sane: Result<i64, StoreError> = store
            .write(|tx| Ok(tx.query_row("SELECT 1", [], |row| row.get(0))?))
            .await;
        assert_eq!(sane.unwrap(), 1);
    }

    #[tokio::test]
    async fn a_transaction_that_sqlite_undid_by_itself_does_not_end_the_writer() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(&directory.path().join("test.db")).unwrap();
        // What SQLite does on a full disk.
        let lost: Result<(), StoreError> = store
            .write(|tx| {
                tx.execute_batch("ROLLBACK")?;
                Err(StoreError::Statement(rusqlite::Error::InvalidQuery))
            })
            .await;
        assert!(lost.is_err());
        let sane: Result<usize, StoreError> = store
            .write(|tx| Ok(tx.execute("INSERT INTO settings (name, value) VALUES ('a', 'x')", [])?))
            .await;
        assert_eq!(sane.unwrap(), 1);
    }

    #[tokio::test]
    async fn readers_cannot_write() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(&directory.path().join("test.db")).unwrap();
        let refused: Result<usize, StoreError> = store
            .read(|connection| Ok(connection.execute("DELETE FROM settings", [])?))
            .await;
        assert!(refused.is_err());
    }
}
