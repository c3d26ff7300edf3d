//! What the store knows of one connection.

use std::collections::{BTreeMap, BTreeSet};

use super::tree::{Change, Code, Tree};
use crate::store::wire::{Kind, Message};
use crate::store::Permission;
use crate::DomId;

/// Watches that a connection of a domain other than 0 may have.
const MAX_WATCHES: usize = 128;
/// Transactions that such a connection may have open.
const MAX_TRANSACTIONS: usize = 10;

/// One connection.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) domain: DomId,
    pub(super) watches: Vec<Watch>,
    pub(super) transactions: BTreeMap<u32, Transaction>,
    last_transaction: u32,
    /// Frames that wait to be sent.
    pub(super) output: Vec<u8>,
    /// Its domain is saved and not restored yet.
    pub(super) saved: bool,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Watch {
    /// As the client wrote it: its events are written the same way.
    pub(super) given: String,
    /// The same from the root.
    pub(super) path: String,
    pub(super) token: String,
}

/// What a client has done so far without anybody seeing it.
#[derive(Debug)]
pub(super) struct Transaction {
    /// The tree when it began.
    pub(super) begun: Tree,
    /// The tree as the client sees it.
    pub(super) tree: Tree,
    /// What it has looked at or changed.
    pub(super) touched: BTreeSet<String>,
    pub(super) log: Vec<Action>,
    /// Its domain was restored since it began.
    pub(super) lost: bool,
}

/// A change of the tree, to be done now or again.
#[derive(Clone, Debug)]
pub(super) enum Action {
    Write(String, Vec<u8>),
    Mkdir(String),
    Remove(String),
    SetPermissions(String, Vec<Permission>),
}

impl Action {
    pub(super) fn path(&self) -> &str {
        match self {
            Action::Write(path, _)
            | Action::Mkdir(path)
            | Action::Remove(path)
            | Action::SetPermissions(path, _) => path,
        }
    }

    pub(super) fn apply(&self, tree: &mut Tree, who: DomId) -> Result<Option<Change>, Code> {
        match self {
            Action::Write(path, value) => tree.write(who, path, value).map(Some),
            Action::Mkdir(path) => tree.mkdir(who, path),
            Action::Remove(path) => tree.remove(who, path),
            Action::SetPermissions(path, permissions) => tree
                .set_permissions(who, path, permissions.clone())
                .map(Some),
        }
    }
}

impl Client {
    pub(super) fn new(domain: DomId) -> Self {
        Client {
            domain,
            watches: Vec::new(),
            transactions: BTreeMap::new(),
            last_transaction: 0,
            output: Vec::new(),
            saved: false,
        }
    }

    /// What stands before the relative paths of this client.
    pub(super) fn home(&self) -> String {
        home(self.domain)
    }

    /// A path as this client writes it, from the root.
    pub(super) fn absolute(&self, path: &str) -> String {
        if path.starts_with(['/', '@']) {
            path.to_owned()
        } else {
            format!("{}/{path}", self.home())
        }
    }

    /// Goes on under another number: as a guest's kernel does it, all watches are set again, and what
    /// was begun in a transaction is lost.
    pub(super) fn restore(&mut self, number: DomId) {
        self.saved = false;
        self.domain = number;
        for transaction in self.transactions.values_mut() {
            transaction.lost = true;
        }
        for mut watch in std::mem::take(&mut self.watches) {
            watch.path = self.absolute(&watch.given);
            let (given, token) = (watch.given.clone(), watch.token.clone());
            self.watches.push(watch);
            self.send_event(&given, &token);
        }
    }

    pub(super) fn send(&mut self, message: &Message) {
        self.output.extend(message.encode());
    }

    pub(super) fn send_event(&mut self, path: &str, token: &str) {
        let payload = crate::store::wire::payload(&[path, token]);
        self.send(&Message {
            kind: Kind::WATCH_EVENT,
            request: 0,
            transaction: 0,
            payload,
        });
    }

    pub(super) fn add_watch(&mut self, watch: Watch) -> Result<(), Code> {
        let same = |other: &Watch| other.path == watch.path && other.token == watch.token;
        if self.watches.iter().any(same) {
            return Err("EEXIST");
        }
        if self.domain.0 != 0 && self.watches.len() >= MAX_WATCHES {
            return Err("E2BIG");
        }
        self.watches.push(watch);
        Ok(())
    }

    pub(super) fn begin(&mut self, tree: &Tree) -> Result<u32, Code> {
        if self.domain.0 != 0 && self.transactions.len() >= MAX_TRANSACTIONS {
            return Err("ENOSPC");
        }
        // 0 means "no transaction", and numbers may come around.
        loop {
            self.last_transaction = self.last_transaction.wrapping_add(1);
            let number = self.last_transaction;
            if number != 0 && !self.transactions.contains_key(&number) {
                let transaction = Transaction {
                    begun: tree.clone(),
                    tree: tree.clone(),
                    touched: BTreeSet::new(),
                    log: Vec::new(),
                    lost: false,
                };
                self.transactions.insert(number, transaction);
                return Ok(number);
            }
        }
    }
}

/// The directory of a domain.
pub(super) fn home(domain: DomId) -> String {
    format!("/local/domain/{domain}")
}

impl Transaction {
    /// The tree after this transaction, and what changed, if nobody changed meanwhile what it
    /// touched.
    pub(super) fn commit(self, tree: &Tree, who: DomId) -> Result<(Tree, Vec<Change>), Code> {
        let same = |path: &String| self.begun.generation(path) == tree.generation(path);
        if self.lost || !self.touched.iter().all(same) {
            return Err("EAGAIN");
        }
        let mut tree = tree.clone();
        let mut changes = Vec::new();
        for action in &self.log {
            changes.extend(action.apply(&mut tree, who)?);
        }
        Ok((tree, changes))
    }
}
