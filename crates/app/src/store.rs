//! The data base of chats, downloads, remembered headers and hashes: SQLite, opened by one program at a time.
//!
//! WAL with `synchronous = FULL`: what a command has answered survives a power cut, and an answer that is being written
//! costs four small syncs a second.

use crate::error::Result;
use crate::files::set_aside;
use crate::wire::{ErrorCode, WireError};
use rusqlite::Connection;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// Long work goes on after this, however many others there are.
const MOST_PATIENT: Duration = Duration::from_secs(1);

/// Bytes that are worth it, and that are no work.
const SHRUNK: u64 = 32 << 20;

/// Step `n` makes schema `n + 1` of schema `n`.
const MIGRATIONS: [&str; 4] = [
    "
    CREATE TABLE chats (
        n INTEGER PRIMARY KEY AUTOINCREMENT,
        title TEXT NOT NULL DEFAULT '',
        pinned INTEGER NOT NULL DEFAULT 0,
        system_prompt TEXT NOT NULL DEFAULT '',
        updated INTEGER NOT NULL,
        deleted INTEGER,
        -- The last message of the path that is shown.
        leaf INTEGER
    );
    CREATE TABLE messages (
        n INTEGER PRIMARY KEY AUTOINCREMENT,
        chat INTEGER NOT NULL REFERENCES chats(n) ON DELETE CASCADE,
        parent INTEGER REFERENCES messages(n) ON DELETE CASCADE,
        role TEXT NOT NULL,
        text TEXT NOT NULL,
        thinking TEXT,
        -- An answer as the model wrote it, marks of thinking included: to go on where it was cut.
        raw TEXT,
        model TEXT,
        created INTEGER NOT NULL,
        finish TEXT,
        stats TEXT
    );
    CREATE INDEX messages_by_chat ON messages(chat);
    CREATE INDEX messages_by_parent ON messages(parent);
    -- Trigrams find Japanese too, which has no spaces between words. Rows: finished messages, by messages.n.
    CREATE VIRTUAL TABLE search USING fts5(text, tokenize = 'trigram');
    CREATE TRIGGER forget_message AFTER DELETE ON messages BEGIN DELETE FROM search WHERE rowid = old.n; END;
    CREATE TABLE downloads (
        n INTEGER PRIMARY KEY AUTOINCREMENT,
        quant TEXT NOT NULL,
        -- hub::DownloadRequest as JSON
        request TEXT NOT NULL,
        state TEXT NOT NULL,
        bytes INTEGER NOT NULL DEFAULT 0
    );
    -- What headers say, so that a folder of models is listed without reading them again.
    CREATE TABLE headers (
        path TEXT PRIMARY KEY,
        len INTEGER NOT NULL,
        modified INTEGER NOT NULL,
        facts TEXT NOT NULL
    );
    CREATE TABLE used (model TEXT PRIMARY KEY, at INTEGER NOT NULL);
",
    // wire::ToolCall as JSON, a list; NULL: none.
    "ALTER TABLE messages ADD COLUMN tool_calls TEXT",
    // wire::AnswerFormat as JSON; NULL: any text.
    "ALTER TABLE chats ADD COLUMN format TEXT",
    // What the Hub said of files that were downloaded. By real path.
    "CREATE TABLE hashes (path TEXT PRIMARY KEY, len INTEGER NOT NULL, sha256 TEXT NOT NULL)",
];

pub struct Store {
    connection: Mutex<Connection>,
    /// Threads that wait for it.
    waiting: AtomicUsize,
}

impl Store {
    fn new(connection: Connection) -> Store {
        Store { connection: Mutex::new(connection), waiting: AtomicUsize::new(0) }
    }

    /// Opens or makes the data base. One that is damaged is kept under another name, which is given back, and a new one
    /// made.
    ///
    /// # Errors
    /// It cannot be opened, was written by a newer version, or the damaged one cannot be moved.
    pub fn open(path: &Path) -> Result<(Store, Option<PathBuf>)> {
        match open(path) {
            Ok(connection) => Ok((Store::new(connection), None)),
            Err(error) if is_damaged(&error) => {
                let aside = set_aside(path)?;
                for suffix in ["-wal", "-shm"] {
                    let beside = |path: &Path| PathBuf::from(format!("{}{suffix}", path.display()));
                    // SQLite finds the journal of the copy by its name.
                    let _ = std::fs::rename(beside(path), beside(&aside));
                }
                tracing::error!("the data base was damaged ({error}); it is kept as {}", aside.display());
                let connection = open(path).map_err(Failure::wire)?;
                Ok((Store::new(connection), Some(aside)))
            }
            Err(error) => Err(error.wire()),
        }
    }

    /// A data base that is gone with the program.
    pub fn in_memory() -> Result<Store> {
        let mut connection = Connection::open_in_memory()?;
        migrate(&mut connection).map_err(Failure::wire)?;
        Ok(Store::new(connection))
    }

    pub fn lock(&self) -> MutexGuard<'_, Connection> {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        // A panic in another thread rolled its transaction back; the connection is usable.
        let connection = self.connection.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        self.waiting.fetch_sub(1, Ordering::Relaxed);
        connection
    }

    /// Between two pieces of long work: whoever waits comes first. The mutex alone would give it to whoever asks soonest.
    pub fn give_way(&self) {
        let begun = Instant::now();
        while self.waiting.load(Ordering::Relaxed) > 0 && begun.elapsed() < MOST_PATIENT {
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Gives the disk back what was deleted, where that is much and what stays is written anew in a moment.
    pub fn shrink(&self) -> Result<()> {
        let db = self.lock();
        let figure = |name: &str| db.pragma_query_value(None, name, |row| row.get::<_, u64>(0));
        let (page, pages, free) = (figure("page_size")?, figure("page_count")?, figure("freelist_count")?);
        if free * page > SHRUNK && (pages - free.min(pages)) * page < SHRUNK {
            db.execute_batch("VACUUM; PRAGMA wal_checkpoint(TRUNCATE)")?;
        }
        Ok(())
    }

    /// Runs `work` in one transaction.
    pub fn transaction<T>(&self, work: impl FnOnce(&Connection) -> Result<T>) -> Result<T> {
        let mut connection = self.lock();
        let transaction = connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
        let value = work(&transaction)?;
        transaction.commit()?;
        Ok(value)
    }
}

#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("{0}")]
    Sqlite(#[from] rusqlite::Error),
    #[error("integrity check: {0}")]
    Damaged(String),
    #[error("the chats were written by a newer version of Headroom (schema {0}); install that version")]
    Newer(usize),
}

impl Failure {
    fn wire(self) -> WireError {
        match self {
            Failure::Sqlite(error) => error.into(),
            other => WireError::new(ErrorCode::Storage, other.to_string()),
        }
    }
}

fn is_damaged(failure: &Failure) -> bool {
    use rusqlite::ErrorCode::{DatabaseCorrupt, NotADatabase};
    match failure {
        Failure::Sqlite(error) => matches!(error.sqlite_error_code(), Some(DatabaseCorrupt | NotADatabase)),
        Failure::Damaged(_) => true,
        Failure::Newer(_) => false,
    }
}

fn open(path: &Path) -> Result<Connection, Failure> {
    let mut connection = Connection::open(path)?;
    connection.busy_timeout(std::time::Duration::from_secs(5))?;
    // The data folder has one owner anyway. Without memory that is shared, a WAL also works on a network drive, where companies
    // have the profiles of Windows.
    connection.pragma_update(None, "locking_mode", "EXCLUSIVE")?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "foreign_keys", true)?;
    let check: String = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
    if check != "ok" {
        return Err(Failure::Damaged(check));
    }
    migrate(&mut connection)?;
    Ok(connection)
}

fn migrate(connection: &mut Connection) -> Result<(), Failure> {
    let version: usize = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    if version > MIGRATIONS.len() {
        return Err(Failure::Newer(version));
    }
    for (done, step) in MIGRATIONS.iter().enumerate().skip(version) {
        let transaction = connection.transaction()?;
        transaction.execute_batch(step)?;
        transaction.pragma_update(None, "user_version", done + 1)?;
        transaction.commit()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chats::Chats;
    use std::sync::Arc;

    #[test]
    fn no_memory_is_shared() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("chats.db");
        let (store, _) = Store::open(&path).unwrap();
        store.lock().execute("INSERT INTO chats(title, updated) VALUES ('x', 1)", []).unwrap();
        let files = || {
            let found = std::fs::read_dir(folder.path()).unwrap();
            let mut names: Vec<_> = found.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
            names.sort();
            names
        };
        assert_eq!(files(), ["chats.db", "chats.db-wal"]);
        drop(store);
        assert_eq!(files(), ["chats.db"], "the journal is in the data base");
        let (store, _) = Store::open(&path).unwrap();
        let count: u32 = store.lock().query_row("SELECT count(*) FROM chats", [], |row| row.get(0)).unwrap();
        assert_eq!(count, 1);
    }

    #[test]
    fn long_work_gives_way_to_others() {
        let store = Store::in_memory().unwrap();
        let turns = AtomicUsize::new(0);
        let (done, waited) = (AtomicUsize::new(0), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while done.load(Ordering::Relaxed) < 20 && turns.load(Ordering::Relaxed) < 1000 {
                    store.give_way();
                    let _held = store.lock();
                    turns.fetch_add(1, Ordering::Relaxed);
                    std::thread::sleep(Duration::from_millis(5));
                }
            });
            while turns.load(Ordering::Relaxed) == 0 {
                std::thread::yield_now();
            }
            for _ in 0..20 {
                let before = turns.load(Ordering::Relaxed);
                drop(store.lock());
                waited.fetch_add(turns.load(Ordering::Relaxed) - before, Ordering::Relaxed);
                done.fetch_add(1, Ordering::Relaxed);
                // Others come again before long.
                std::thread::sleep(Duration::from_millis(1));
            }
        });
        // None, unless the system stops a thread that is about to wait.
        let waited = waited.into_inner();
        assert!(waited <= 10, "{waited} turns while others waited for 20");
    }

    #[test]
    fn what_was_deleted_is_the_disks_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("chats.db");
        let (store, _) = Store::open(&path).unwrap();
        let len = || std::fs::metadata(&path).unwrap().len();
        let add = |bytes: u64| {
            let sql = "INSERT INTO chats(title, updated) VALUES (zeroblob(?1), 1)";
            store.lock().execute(sql, [bytes]).unwrap();
        };
        add(1000);
        add(40 << 20);
        store.lock().execute_batch("PRAGMA wal_checkpoint(TRUNCATE)").unwrap();
        store.shrink().unwrap();
        assert!(len() > 40 << 20, "nothing was deleted");
        store.lock().execute("DELETE FROM chats WHERE length(title) > 1000", []).unwrap();
        store.shrink().unwrap();
        assert!(len() < 1 << 20, "{}", len());
        // What is in use would take long to write anew.
        add(40 << 20);
        add(40 << 20);
        store.lock().execute_batch("DELETE FROM chats WHERE n = 3; PRAGMA wal_checkpoint(TRUNCATE)").unwrap();
        store.shrink().unwrap();
        assert!(len() > 80 << 20, "{}", len());
    }

    #[test]
    fn chats_of_the_first_schema_open() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("chats.db");
        let old = Connection::open(&path).unwrap();
        old.execute_batch(MIGRATIONS[0]).unwrap();
        old.pragma_update(None, "user_version", 1).unwrap();
        old.execute_batch(
            "INSERT INTO chats(title, updated) VALUES ('Old', 1);
             INSERT INTO messages(chat, role, text, thinking, raw, created, finish)
             VALUES (1, 'assistant', 'Hi', 'Hm', '<think>Hm</think>Hi', 1, 'end');
             UPDATE chats SET leaf = 1;",
        )
        .unwrap();
        drop(old);
        let (store, aside) = Store::open(&path).unwrap();
        assert_eq!(aside, None);
        let (chats, _) = Chats::open(Arc::new(store)).unwrap();
        let chat = chats.get("1").unwrap();
        let message = &chat.messages[0];
        assert_eq!((message.text.as_str(), message.thinking.as_deref()), ("Hi", Some("Hm")));
        assert!(message.tool_calls.is_empty());
    }
}
