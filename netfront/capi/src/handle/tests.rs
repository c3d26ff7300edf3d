#![allow(clippy::unwrap_used)]

use hypervisor::sim::server;
use hypervisor::DomId;
use netback_sim::{peer, Backend, Config};
use rustix::event::{eventfd, EventfdFlags};

use super::*;

/// What cannot be watched would never wake anybody: it must not pass for a connection.
#[test]
fn a_connection_that_epoll_refuses_is_ended_and_the_next_attempt_makes_one() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("xen");
    let _server = server::spawn(&socket, server::Options::new()).unwrap();
    let back = Domain::simulated(&socket, DomId(0)).unwrap();
    let _backend = Backend::start(&back, Config::new(DomId(1), peer::Sink::new())).unwrap();
    let mut handle = Netfront::open(&Options::default(), Some(socket)).unwrap();
    // No epoll, so nothing can be added to it.
    let wrong = eventfd(0, EventfdFlags::CLOEXEC).unwrap();
    let right = std::mem::replace(&mut handle.ready, wrong);
    let problem = handle.reconnect().unwrap_err();
    assert_eq!(problem.code, Error::System, "{}", problem.text);
    assert!(matches!(*handle.state.borrow(), State::Apart(_)));
    assert!(!handle.link().carrier);
    let refused = handle.flush().unwrap_err();
    assert_eq!(refused.code, Error::Disconnected);
    handle.ready = right;
    assert_eq!(handle.reconnect().unwrap(), 0);
    assert!(handle.link().carrier);
    assert_eq!(handle.flush().unwrap(), 0);
    assert_eq!(handle.close().unwrap(), 0);
}
