//! The tree without messages: rights, quotas, removal.

use super::*;

const DOM0: DomId = DomId(0);
const GUEST: DomId = DomId(5);
const OTHER: DomId = DomId(6);

fn permission(domain: DomId, rights: Rights) -> Permission {
    Permission { domain, rights }
}

/// A tree with a directory that belongs to the guest.
fn tree() -> Tree {
    let mut tree = Tree::new();
    tree.mkdir(DOM0, "/guest").unwrap();
    tree.set_permissions(DOM0, "/guest", vec![permission(GUEST, Rights::None)])
        .unwrap();
    tree
}

#[test]
fn writing_makes_the_node_and_its_parents() {
    let mut tree = tree();
    tree.write(GUEST, "/guest/a/b", b"1").unwrap();
    assert_eq!(tree.read(GUEST, "/guest/a/b"), Ok(&b"1"[..]));
    assert_eq!(tree.read(GUEST, "/guest/a"), Ok(&b""[..]));
    assert_eq!(
        tree.list(GUEST, "/guest").unwrap().collect::<Vec<_>>(),
        ["a"]
    );
}

#[test]
fn a_guest_writes_nothing_outside_its_own_nodes() {
    let mut tree = tree();
    assert_eq!(tree.write(GUEST, "/x", b""), Err("EACCES"));
    assert_eq!(tree.write(OTHER, "/guest/x", b""), Err("EACCES"));
    assert_eq!(tree.remove(OTHER, "/guest"), Err("EACCES"));
    assert_eq!(tree.mkdir(OTHER, "/guest/x"), Err("EACCES"));
}

#[test]
fn who_may_not_read_is_not_told_whether_a_node_exists() {
    let tree = tree();
    assert_eq!(tree.read(OTHER, "/guest"), Err("EACCES"));
    assert_eq!(tree.read(OTHER, "/guest/nothing"), Err("EACCES"));
    assert_eq!(tree.read(GUEST, "/guest/nothing"), Err("ENOENT"));
}

#[test]
fn children_take_the_rights_of_their_parent() {
    let mut tree = tree();
    let rights = vec![
        permission(GUEST, Rights::None),
        permission(OTHER, Rights::Read),
    ];
    tree.set_permissions(GUEST, "/guest", rights.clone())
        .unwrap();
    tree.write(GUEST, "/guest/a", b"1").unwrap();
    assert_eq!(tree.read(OTHER, "/guest/a"), Ok(&b"1"[..]));
    assert_eq!(tree.permissions(GUEST, "/guest/a"), Ok(&rights[..]));
    tree.write(DOM0, "/guest/b", b"1").unwrap();
    assert_eq!(tree.permissions(GUEST, "/guest/b"), Ok(&rights[..]));
}

#[test]
fn a_node_made_in_the_directory_of_another_belongs_to_its_maker() {
    let mut tree = tree();
    let rights = vec![
        permission(GUEST, Rights::None),
        permission(OTHER, Rights::Both),
    ];
    tree.set_permissions(GUEST, "/guest", rights).unwrap();
    tree.write(OTHER, "/guest/a", b"1").unwrap();
    assert_eq!(
        tree.permissions(OTHER, "/guest/a").unwrap()[0].domain,
        OTHER
    );
}

#[test]
fn only_the_owner_says_who_may_and_only_domain_0_gives_away() {
    let mut tree = tree();
    let open = vec![permission(GUEST, Rights::Both)];
    tree.set_permissions(GUEST, "/guest", open.clone()).unwrap();
    assert_eq!(tree.set_permissions(OTHER, "/guest", open), Err("EACCES"));
    let away = vec![permission(OTHER, Rights::None)];
    assert_eq!(
        tree.set_permissions(GUEST, "/guest", away.clone()),
        Err("EPERM")
    );
    assert!(tree.set_permissions(DOM0, "/guest", away).is_ok());
}

#[test]
fn removing_takes_all_below_and_nothing_beside() {
    let mut tree = tree();
    tree.write(GUEST, "/guest/a/b", b"").unwrap();
    tree.write(GUEST, "/guest/ab", b"").unwrap();
    let change = tree.remove(GUEST, "/guest/a").unwrap().unwrap();
    assert_eq!(change.below, ["/guest/a/b"]);
    assert_eq!(
        tree.list(GUEST, "/guest").unwrap().collect::<Vec<_>>(),
        ["ab"]
    );
    assert_eq!(tree.remove(GUEST, "/guest/a"), Ok(None));
    assert_eq!(tree.remove(GUEST, "/guest/x/y"), Err("ENOENT"));
    assert_eq!(tree.remove(DOM0, "/"), Err("EINVAL"));
}

#[test]
fn a_guest_has_its_quota() {
    let mut tree = tree();
    assert_eq!(
        tree.write(GUEST, "/guest/a", &[b'x'; MAX_NODE_SIZE + 1]),
        Err("ENOSPC")
    );
    assert!(tree
        .write(DOM0, "/guest/a", &[b'x'; MAX_NODE_SIZE + 1])
        .is_ok());
    let made = (0..2 * MAX_NODES).take_while(|n| {
        tree.write(GUEST, &format!("/guest/{}/{n}", n / 100), b"")
            .is_ok()
    });
    let made = made.count();
    assert!(made < MAX_NODES, "{made} nodes were made");
}

#[test]
fn parents_of_paths() {
    assert_eq!(parent("/"), None);
    assert_eq!(parent("/a"), Some("/"));
    assert_eq!(parent("/a/b"), Some("/a"));
    assert_eq!(parent("@x"), None);
    assert!(is_within("/a/b", "/a") && is_within("/a", "/a") && is_within("/a", "/"));
    assert!(!is_within("/ab", "/a") && !is_within("/a", "/a/b"));
}
