//! The store of the simulated Xen: what xenstored does with one message, and nothing of sockets.
//!
//! | file | what is in it |
//! | --- | --- |
//! | `tree` | nodes and rights |
//! | `client` | one connection: watches, transactions, what waits to be sent |
//! | here | the messages |
//!
//! # Invariants
//!
//! - Any message is answered once, be it with an error; none stops the server.
//! - A watch fires once when it is set, and then for each change at or below its path that its
//!   client may read. What a transaction does is told when it is committed.

mod client;
mod tree;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use crate::store::wire::{self, Kind, Message};
use crate::store::{Permission, Rights};
use crate::DomId;
use client::{home, Action, Client, Watch};
use tree::{allows, is_within, Change, Code, Tree};

/// The paths that are watched without being nodes; only domain 0 is told.
const INTRODUCE: &str = "@introduceDomain";

/// The tree and everybody connected to it.
#[derive(Debug)]
pub(super) struct StoreServer {
    tree: Tree,
    clients: BTreeMap<u64, Client>,
    introduced: Vec<DomId>,
}

impl StoreServer {
    pub(super) fn new() -> Self {
        StoreServer {
            tree: Tree::new(),
            clients: BTreeMap::new(),
            introduced: Vec::new(),
        }
    }

    /// Makes the directory of a domain, as the toolstack does, unless it was made before.
    pub(super) fn introduce(&mut self, domain: DomId) {
        if self.introduced.contains(&domain) {
            return;
        }
        self.introduced.push(domain);
        let home = home(domain);
        let own = vec![Permission {
            domain,
            rights: Rights::None,
        }];
        let actions = [
            Action::Mkdir(home.clone()),
            Action::SetPermissions(home.clone(), own),
            Action::Write(format!("{home}/domid"), domain.to_string().into_bytes()),
            Action::Write(
                format!("{home}/name"),
                format!("domain-{domain}").into_bytes(),
            ),
        ];
        for action in actions {
            match action.apply(&mut self.tree, DomId(0)) {
                Ok(change) => self.fire(change.as_slice()),
                Err(code) => {
                    tracing::warn!(code, ?action, "the directory of a domain is not whole")
                }
            }
        }
        let only_domain_0 = vec![Permission {
            domain: DomId(0),
            rights: Rights::None,
        }];
        self.fire(&[Change {
            path: INTRODUCE.into(),
            permissions: only_domain_0,
            below: Vec::new(),
        }]);
    }

    /// Removes the directory of a domain that is saved. Its own clients stand still and are not told.
    pub(super) fn save(&mut self, domain: DomId) {
        self.introduced.retain(|other| *other != domain);
        for client in self.of(domain) {
            client.saved = true;
        }
        if let Ok(change) = Action::Remove(home(domain)).apply(&mut self.tree, DomId(0)) {
            self.fire(change.as_slice());
        }
    }

    /// The clients of `domain` go on as those of `number`, and all that they watch fires.
    pub(super) fn restore(&mut self, domain: DomId, number: DomId) {
        self.introduce(number);
        let clients = self.clients.values_mut();
        for client in clients.filter(|client| client.saved && client.domain == domain) {
            client.restore(number);
        }
    }

    fn of(&mut self, domain: DomId) -> impl Iterator<Item = &mut Client> {
        let clients = self.clients.values_mut();
        clients.filter(move |client| client.domain == domain)
    }

    /// Whether the domain of this client is saved: then it is not heard.
    pub(super) fn is_saved(&self, client: u64) -> bool {
        self.clients.get(&client).is_some_and(|client| client.saved)
    }

    pub(super) fn connect(&mut self, client: u64, domain: DomId) {
        self.clients.insert(client, Client::new(domain));
    }

    /// Its watches and open transactions go with it.
    pub(super) fn disconnect(&mut self, client: u64) {
        self.clients.remove(&client);
    }

    /// How many bytes wait to be sent to a client.
    pub(super) fn waiting(&self, client: u64) -> usize {
        self.output(client).len()
    }

    /// What waits to be sent to a client.
    pub(super) fn output(&self, client: u64) -> &[u8] {
        self.clients
            .get(&client)
            .map_or(&[], |client| &client.output)
    }

    /// So many bytes of it were sent.
    pub(super) fn sent(&mut self, client: u64, bytes: usize) {
        if let Some(client) = self.clients.get_mut(&client) {
            client.output.drain(..bytes);
        }
    }

    /// Does what a message asks, and answers it.
    pub(super) fn serve(&mut self, client: u64, message: &Message) {
        let answer = match self.answer(client, message) {
            Ok(payload) if payload.len() <= wire::MAX_PAYLOAD => Message {
                payload,
                ..header(message, message.kind)
            },
            Ok(_) => error(message, "E2BIG"),
            Err(code) => error(message, code),
        };
        let Some(client) = self.clients.get_mut(&client) else {
            return;
        };
        client.send(&answer);
        // The first event of a watch comes after the answer that the watch is set.
        if let (Kind::WATCH, Some(watch)) = (answer.kind, client.watches.last()) {
            let (given, token) = (watch.given.clone(), watch.token.clone());
            client.send_event(&given, &token);
        }
    }

    fn answer(&mut self, id: u64, message: &Message) -> Result<Vec<u8>, Code> {
        let payload = &message.payload[..];
        match message.kind {
            Kind::READ => self.look(id, message, |tree, who, path| {
                Ok(tree.read(who, path)?.to_vec())
            }),
            Kind::DIRECTORY => self.look(id, message, |tree, who, path| {
                Ok(wire::payload(&tree.list(who, path)?.collect::<Vec<_>>()))
            }),
            Kind::GET_PERMS => self.look(id, message, |tree, who, path| {
                let permissions = tree.permissions(who, path)?.iter();
                Ok(permissions
                    .flat_map(|one| wire::payload(&[&wire::format_permission(*one)]))
                    .collect())
            }),
            Kind::WRITE => {
                // The path ends with a zero byte, the value does not.
                let end = payload.iter().position(|byte| *byte == 0).ok_or("EINVAL")?;
                let (path, value) = (
                    self.path(id, &payload[..=end])?,
                    payload[end + 1..].to_vec(),
                );
                self.act(id, message, Action::Write(path, value))
            }
            Kind::MKDIR => self.act(id, message, Action::Mkdir(self.path(id, payload)?)),
            Kind::RM => self.act(id, message, Action::Remove(self.path(id, payload)?)),
            Kind::SET_PERMS => {
                let strings = wire::strings(payload).ok_or("EINVAL")?;
                let (path, permissions) = strings.split_first().ok_or("EINVAL")?;
                let permissions = permissions.iter().map(|text| wire::parse_permission(text));
                let permissions = permissions.collect::<Option<Vec<_>>>().ok_or("EINVAL")?;
                let path = self.path(id, &wire::payload(&[path]))?;
                self.act(id, message, Action::SetPermissions(path, permissions))
            }
            Kind::WATCH => {
                let [path, token] = two(payload)?;
                let watch = self.watch_of(id, path, token)?;
                self.client(id)?.add_watch(watch)?;
                Ok(okay())
            }
            Kind::UNWATCH => {
                let [path, token] = two(payload)?;
                let watch = self.watch_of(id, path, token)?;
                let watches = &mut self.client(id)?.watches;
                let same = |other: &Watch| other.path == watch.path && other.token == watch.token;
                let at = watches.iter().position(same).ok_or("ENOENT")?;
                watches.remove(at);
                Ok(okay())
            }
            Kind::RESET_WATCHES => {
                let client = self.client(id)?;
                client.watches.clear();
                client.transactions.clear();
                Ok(okay())
            }
            Kind::TRANSACTION_START => {
                // One in another is not allowed.
                if message.transaction != 0 {
                    return Err("EBUSY");
                }
                let client = self.clients.get_mut(&id).ok_or("EINVAL")?;
                Ok(wire::payload(&[&client.begin(&self.tree)?.to_string()]))
            }
            Kind::TRANSACTION_END => self.end(id, message),
            Kind::GET_DOMAIN_PATH => Ok(wire::payload(&[&home(domain(payload)?)])),
            Kind::IS_DOMAIN_INTRODUCED => {
                let introduced = self.introduced.contains(&domain(payload)?);
                Ok(wire::payload(&[if introduced { "T" } else { "F" }]))
            }
            Kind(unknown) => {
                tracing::debug!(unknown, "a message that the simulated store does not know");
                Err("ENOSYS")
            }
        }
    }

    /// Answers from the tree that the client sees.
    fn look(
        &mut self,
        id: u64,
        message: &Message,
        look: impl FnOnce(&Tree, DomId, &str) -> Result<Vec<u8>, Code>,
    ) -> Result<Vec<u8>, Code> {
        let path = self.path(id, &message.payload)?;
        let client = self.clients.get_mut(&id).ok_or("EINVAL")?;
        let who = client.domain;
        if message.transaction == 0 {
            return look(&self.tree, who, &path);
        }
        let transaction = client
            .transactions
            .get_mut(&message.transaction)
            .ok_or("ENOENT")?;
        let result = look(&transaction.tree, who, &path);
        transaction.touched.insert(path);
        result
    }

    /// Changes the tree that the client sees.
    fn act(&mut self, id: u64, message: &Message, action: Action) -> Result<Vec<u8>, Code> {
        let client = self.clients.get_mut(&id).ok_or("EINVAL")?;
        let who = client.domain;
        if message.transaction == 0 {
            let change = action.apply(&mut self.tree, who)?;
            self.fire(change.as_slice());
        } else {
            let transaction = client
                .transactions
                .get_mut(&message.transaction)
                .ok_or("ENOENT")?;
            transaction.touched.insert(action.path().to_owned());
            action.apply(&mut transaction.tree, who)?;
            transaction.log.push(action);
        }
        Ok(okay())
    }

    fn end(&mut self, id: u64, message: &Message) -> Result<Vec<u8>, Code> {
        let strings = wire::strings(&message.payload).ok_or("EINVAL")?;
        let commit = match strings[..] {
            ["T"] => true,
            ["F"] => false,
            _ => return Err("EINVAL"),
        };
        let client = self.clients.get_mut(&id).ok_or("EINVAL")?;
        let transaction = client
            .transactions
            .remove(&message.transaction)
            .ok_or("ENOENT")?;
        if commit {
            let (tree, changes) = transaction.commit(&self.tree, client.domain)?;
            self.tree = tree;
            self.fire(&changes);
        }
        Ok(okay())
    }

    /// Tells everybody who watches and may read.
    fn fire(&mut self, changes: &[Change]) {
        for change in changes {
            for client in self.clients.values_mut() {
                if client.saved || !allows(&change.permissions, client.domain, Rights::Read) {
                    continue;
                }
                let home = client.home();
                let mut events = Vec::new();
                for watch in &client.watches {
                    let path = if is_within(&change.path, &watch.path) {
                        &change.path
                    } else if change.below.contains(&watch.path) {
                        // What is watched went together with something above it.
                        &watch.path
                    } else {
                        continue;
                    };
                    // A watch given without the own directory is told without it.
                    let relative = !watch.given.starts_with(['/', '@']);
                    let told = path.strip_prefix(&home).filter(|_| relative);
                    let told = told.map_or(&path[..], |path| path.trim_start_matches('/'));
                    events.push((told.to_owned(), watch.token.clone()));
                }
                for (path, token) in events {
                    client.send_event(&path, &token);
                }
            }
        }
    }

    fn client(&mut self, id: u64) -> Result<&mut Client, Code> {
        self.clients.get_mut(&id).ok_or("EINVAL")
    }

    /// The path of a payload that is one string, from the root.
    fn path(&self, id: u64, payload: &[u8]) -> Result<String, Code> {
        let strings = wire::strings(payload).ok_or("EINVAL")?;
        let [path] = strings[..] else {
            return Err("EINVAL");
        };
        if path.starts_with('@') {
            return Err("EINVAL");
        }
        self.absolute(id, path)
    }

    fn absolute(&self, id: u64, path: &str) -> Result<String, Code> {
        if !wire::is_path(path) {
            return Err("EINVAL");
        }
        let client = self.clients.get(&id).ok_or("EINVAL")?;
        Ok(client.absolute(path))
    }

    fn watch_of(&self, id: u64, path: &str, token: &str) -> Result<Watch, Code> {
        Ok(Watch {
            given: path.to_owned(),
            path: self.absolute(id, path)?,
            token: token.to_owned(),
        })
    }
}

fn header(question: &Message, kind: Kind) -> Message {
    Message {
        kind,
        request: question.request,
        transaction: question.transaction,
        payload: Vec::new(),
    }
}

fn error(question: &Message, code: Code) -> Message {
    Message {
        payload: wire::payload(&[code]),
        ..header(question, Kind::ERROR)
    }
}

fn okay() -> Vec<u8> {
    wire::payload(&["OK"])
}

fn two(payload: &[u8]) -> Result<[&str; 2], Code> {
    let strings = wire::strings(payload).ok_or("EINVAL")?;
    <[&str; 2]>::try_from(strings).map_err(|_| "EINVAL")
}

fn domain(payload: &[u8]) -> Result<DomId, Code> {
    let strings = wire::strings(payload).ok_or("EINVAL")?;
    let [number] = strings[..] else {
        return Err("EINVAL");
    };
    wire::parse_number(number).map(DomId).ok_or("EINVAL")
}
