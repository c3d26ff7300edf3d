//! The tree of nodes, and who may do what with them.
//!
//! # Invariants
//!
//! - Every node but the root has a parent.
//! - Domain 0 may do everything. Another domain may do with a node what the node's list says: its
//!   first entry names the owner, who may do everything, and what everybody may do who is not named.
//! - A node that a domain other than 0 makes belongs to that domain; for the rest it takes after its parent.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::store::{Permission, Rights};
use crate::DomId;

/// Nodes that a domain other than 0 may own.
const MAX_NODES: usize = 1000;
/// Bytes of value and child names that a node of such a domain may have.
const MAX_NODE_SIZE: usize = 2048;
/// Entries that the list of rights of a node may have.
const MAX_PERMISSIONS: usize = 16;

/// An error as the protocol names it.
pub(super) type Code = &'static str;

/// All nodes by their paths. Cloning is cheap enough for a transaction.
#[derive(Clone, Debug)]
pub(super) struct Tree {
    nodes: BTreeMap<String, Arc<Node>>,
    /// Counts changes; each node carries the count of its last one.
    generation: u64,
}

#[derive(Clone, Debug)]
struct Node {
    value: Vec<u8>,
    permissions: Vec<Permission>,
    children: BTreeSet<String>,
    generation: u64,
}

/// What happened to the tree, for the watches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Change {
    /// The node that was written, made or removed.
    pub(super) path: String,
    /// Who may be told: the rights of the node, before it went if it went.
    pub(super) permissions: Vec<Permission>,
    /// The nodes that went with it, when it was removed.
    pub(super) below: Vec<String>,
}

/// Whether `domain` may do with a node of these rights what `wanted` says.
pub(super) fn allows(permissions: &[Permission], domain: DomId, wanted: Rights) -> bool {
    let Some(owner) = permissions.first() else {
        return domain.0 == 0;
    };
    if domain.0 == 0 || owner.domain == domain {
        return true;
    }
    let named = permissions[1..].iter().find(|entry| entry.domain == domain);
    let rights = named.unwrap_or(owner).rights;
    rights == Rights::Both || rights == wanted
}

/// The path of the parent; `None` for the root.
pub(super) fn parent(path: &str) -> Option<&str> {
    match path.rfind('/')? {
        0 if path.len() == 1 => None,
        0 => Some("/"),
        at => Some(&path[..at]),
    }
}

/// Whether `path` is `top` or lies below it.
pub(super) fn is_within(path: &str, top: &str) -> bool {
    match path.strip_prefix(top) {
        Some(rest) => top == "/" || rest.is_empty() || rest.starts_with('/'),
        None => false,
    }
}

impl Tree {
    pub(super) fn new() -> Self {
        let root = Node {
            value: Vec::new(),
            permissions: vec![Permission {
                domain: DomId(0),
                rights: Rights::Read,
            }],
            children: BTreeSet::new(),
            generation: 0,
        };
        Tree {
            nodes: BTreeMap::from([("/".to_owned(), Arc::new(root))]),
            generation: 0,
        }
    }

    /// The count of the last change of a node; `None` when it does not exist.
    pub(super) fn generation(&self, path: &str) -> Option<u64> {
        self.nodes.get(path).map(|node| node.generation)
    }

    pub(super) fn read(&self, who: DomId, path: &str) -> Result<&[u8], Code> {
        Ok(&self.node(who, path, Rights::Read)?.value)
    }

    pub(super) fn list(&self, who: DomId, path: &str) -> Result<impl Iterator<Item = &str>, Code> {
        Ok(self
            .node(who, path, Rights::Read)?
            .children
            .iter()
            .map(String::as_str))
    }

    pub(super) fn permissions(&self, who: DomId, path: &str) -> Result<&[Permission], Code> {
        Ok(&self.node(who, path, Rights::Read)?.permissions)
    }

    /// The rights of a node, or of the nearest one above it that exists.
    pub(super) fn nearest_permissions(&self, path: &str) -> &[Permission] {
        self.nodes
            .get(self.nearest(path))
            .map_or(&[], |node| &node.permissions)
    }

    pub(super) fn write(&mut self, who: DomId, path: &str, value: &[u8]) -> Result<Change, Code> {
        let size = self.nodes.get(path).map_or(0, |node| names(node));
        limit_size(who, size + value.len())?;
        self.make(who, path)?;
        let permissions = self.change(path, |node| node.value = value.to_vec());
        Ok(Change {
            path: path.to_owned(),
            permissions,
            below: Vec::new(),
        })
    }

    /// Makes a node; `None` when it was there.
    pub(super) fn mkdir(&mut self, who: DomId, path: &str) -> Result<Option<Change>, Code> {
        if !self.make(who, path)? {
            return Ok(None);
        }
        let permissions = self.nearest_permissions(path).to_vec();
        Ok(Some(Change {
            path: path.to_owned(),
            permissions,
            below: Vec::new(),
        }))
    }

    /// Removes a node with all below it; `None` when it was not there, though its parent is.
    pub(super) fn remove(&mut self, who: DomId, path: &str) -> Result<Option<Change>, Code> {
        let Some(above) = parent(path) else {
            return Err("EINVAL");
        };
        match self.node(who, path, Rights::Write) {
            Ok(_) => {}
            Err("ENOENT") if self.node(who, above, Rights::Write).is_ok() => return Ok(None),
            Err(code) => return Err(code),
        }
        let permissions = self.nearest_permissions(path).to_vec();
        let gone: Vec<String> = self
            .nodes
            .keys()
            .filter(|name| is_within(name, path))
            .cloned()
            .collect();
        for name in &gone {
            self.nodes.remove(name);
        }
        let name = path.rsplit('/').next().unwrap_or_default().to_owned();
        self.change(above, |node| {
            node.children.remove(&name);
        });
        let below = gone.into_iter().filter(|name| name != path).collect();
        Ok(Some(Change {
            path: path.to_owned(),
            permissions,
            below,
        }))
    }

    pub(super) fn set_permissions(
        &mut self,
        who: DomId,
        path: &str,
        permissions: Vec<Permission>,
    ) -> Result<Change, Code> {
        let owner = |list: &[Permission]| list.first().map(|entry| entry.domain);
        let Some(new_owner) = owner(&permissions) else {
            return Err("EINVAL");
        };
        if permissions.len() > MAX_PERMISSIONS {
            return Err("ENOSPC");
        }
        let node = self.node(who, path, Rights::Write)?;
        // The right to write is not enough: only the owner says who else may, and only domain 0
        // gives a node away.
        if who.0 != 0 {
            if owner(&node.permissions) != Some(who) {
                return Err("EACCES");
            }
            if new_owner != who {
                return Err("EPERM");
            }
        }
        let permissions = self.change(path, |node| node.permissions = permissions);
        Ok(Change {
            path: path.to_owned(),
            permissions,
            below: Vec::new(),
        })
    }

    /// A node, when `who` may do that with it. Who may not read what is above is not told whether
    /// it exists.
    fn node(&self, who: DomId, path: &str, wanted: Rights) -> Result<&Node, Code> {
        match self.nodes.get(path) {
            Some(node) if allows(&node.permissions, who, wanted) => Ok(node),
            Some(_) => Err("EACCES"),
            None if allows(self.nearest_permissions(path), who, Rights::Read) => Err("ENOENT"),
            None => Err("EACCES"),
        }
    }

    /// The path itself, or the nearest above it that exists.
    fn nearest<'path>(&self, path: &'path str) -> &'path str {
        let mut path = path;
        while !self.nodes.contains_key(path) {
            match parent(path) {
                Some(above) => path = above,
                None => return "/",
            }
        }
        path
    }

    /// Sees to it that a node is there and that `who` may write it; `false` when it was there.
    fn make(&mut self, who: DomId, path: &str) -> Result<bool, Code> {
        let nearest = self.nearest(path).to_owned();
        let Some(above) = self.nodes.get(&nearest) else {
            return Err("ENOENT");
        };
        if !allows(&above.permissions, who, Rights::Write) {
            return Err("EACCES");
        }
        if nearest == path {
            return Ok(false);
        }
        let mut permissions = above.permissions.clone();
        if who.0 != 0 {
            if let Some(owner) = permissions.first_mut() {
                owner.domain = who;
            }
        }
        let rest = path[nearest.len()..].trim_start_matches('/').to_owned();
        let owner = permissions.first().map_or(DomId(0), |entry| entry.domain);
        self.limit_nodes(owner, rest.split('/').count())?;
        let first_name = rest.split('/').next().map_or(0, str::len);
        limit_size(who, above.value.len() + names(above) + first_name + 1)?;

        let mut above = nearest;
        for name in rest.split('/') {
            let path = if above == "/" {
                format!("/{name}")
            } else {
                format!("{above}/{name}")
            };
            self.change(&above, |node| {
                node.children.insert(name.to_owned());
            });
            let node = Node {
                value: Vec::new(),
                permissions: permissions.clone(),
                children: BTreeSet::new(),
                generation: self.generation,
            };
            self.nodes.insert(path.clone(), Arc::new(node));
            above = path;
        }
        Ok(true)
    }

    /// Changes a node and returns its rights after that.
    fn change(&mut self, path: &str, change: impl FnOnce(&mut Node)) -> Vec<Permission> {
        self.generation += 1;
        let Some(node) = self.nodes.get_mut(path) else {
            return Vec::new();
        };
        let node = Arc::make_mut(node);
        change(node);
        node.generation = self.generation;
        node.permissions.clone()
    }

    fn limit_nodes(&self, owner: DomId, more: usize) -> Result<(), Code> {
        if owner.0 == 0 {
            return Ok(());
        }
        let owned = |node: &&Arc<Node>| {
            node.permissions
                .first()
                .is_some_and(|entry| entry.domain == owner)
        };
        let count = self.nodes.values().filter(owned).count();
        if count + more > MAX_NODES {
            Err("ENOSPC")
        } else {
            Ok(())
        }
    }
}

/// Bytes that the names of the children of a node take.
fn names(node: &Node) -> usize {
    node.children.iter().map(|name| name.len() + 1).sum()
}

fn limit_size(who: DomId, size: usize) -> Result<(), Code> {
    if who.0 != 0 && size > MAX_NODE_SIZE {
        Err("ENOSPC")
    } else {
        Ok(())
    }
}

#[cfg(test)]
#[path = "tree_tests.rs"]
mod tests;
