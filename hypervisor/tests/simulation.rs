//! What only the simulated Xen shows: the death of a process, the server and its socket, a store
//! that is gone.

#![cfg(feature = "sim")]
#![allow(clippy::unwrap_used)]

use std::io;
use std::io::Read;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use hypervisor::sim::server::{self, Options, Running};
use hypervisor::sim::{ensure_running, is_running};
use hypervisor::store::native::NativeStore;
use hypervisor::{
    Access, Copy, CopyStatus, Direction, DomId, Domain, Error, ForeignMemory, GrantRef,
    LocalBuffer, Port, Store, StoreClient,
};

const DEADLINE: Duration = Duration::from_secs(30);
const FRONT: DomId = DomId(5);
const BACK: DomId = DomId(0);

fn xen(options: Options) -> (tempfile::TempDir, Running) {
    let folder = tempfile::tempdir().unwrap();
    let server = server::spawn(&folder.path().join("xen"), options).unwrap();
    (folder, server)
}

fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let until = Instant::now() + DEADLINE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < until, "{what} did not happen");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn status(foreign: &mut ForeignMemory, gref: GrantRef) -> CopyStatus {
    let mut local = LocalBuffer::new(16).unwrap();
    let mut operations = [Copy {
        gref,
        offset: 0,
        len: 16,
        local: 0,
        direction: Direction::FromDomain,
        status: CopyStatus::Other(99),
    }];
    foreign.copy(&mut local, &mut operations).unwrap();
    operations[0].status
}

/// A frontend in a process of its own, which is killed when this goes.
struct Victim(Child);

impl Victim {
    fn start(socket: &Path, back_page: GrantRef) -> Self {
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "the_process_that_is_killed", "--nocapture"])
            .env("HYPERVISOR_VICTIM", socket)
            .env("HYPERVISOR_VICTIM_PAGE", back_page.to_string())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        Victim(child)
    }

    fn kill(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Victim {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// No test by itself: the other end of the tests of death, in a process of its own.
#[test]
fn the_process_that_is_killed() {
    let Ok(socket) = std::env::var("HYPERVISOR_VICTIM") else {
        return;
    };
    let back_page = std::env::var("HYPERVISOR_VICTIM_PAGE")
        .unwrap()
        .parse()
        .unwrap();
    let domain = Domain::simulated(Path::new(&socket), FRONT).unwrap();
    let mut events = domain.events().unwrap();
    let port = events.bind_unbound(BACK).unwrap();
    let shared = domain.share(BACK, 1, Access::ReadWrite).unwrap();
    shared.clear_byte_on_close(100).unwrap();
    shared.notify_on_close(port).unwrap();
    shared.page(0).fill(0, 4096, 1);
    let mapped = domain
        .foreign(BACK)
        .unwrap()
        .map(&[GrantRef(back_page)], Access::ReadWrite);
    mapped.unwrap().page(0).copy_in(0, b"alive");
    let _mapped = domain
        .foreign(BACK)
        .unwrap()
        .map(&[GrantRef(back_page)], Access::ReadWrite);
    let mut store = domain.native_store().unwrap();
    store
        .write("data/gref", &shared.reference(0).to_string())
        .unwrap();
    store.write("data/port", &port.to_string()).unwrap();
    // Killed long before that; no process may stay when a test fails.
    std::thread::sleep(Duration::from_secs(120));
}

#[test]
fn a_killed_process_leaves_what_hypervisor_and_kernel_would_leave() {
    let (folder, _server) = xen(Options::new());
    let socket = folder.path().join("xen");
    let back = Domain::simulated(&socket, BACK).unwrap();
    let own = back.share(FRONT, 1, Access::ReadWrite).unwrap();
    let own_gref = own.reference(0);
    let mut victim = Victim::start(&socket, own_gref);

    let mut store = back.store().unwrap();
    let mut key = |name: &str| -> u32 {
        let path = format!("/local/domain/{FRONT}/data/{name}");
        eventually(name, || store.read(&path).unwrap())
            .parse()
            .unwrap()
    };
    let (gref, near) = (GrantRef(key("gref")), Port(key("port")));
    assert_eq!(&own.page(0).read::<4>(0), b"aliv");
    let mut foreign = back.foreign(FRONT).unwrap();
    let mapped = foreign.map(&[gref], Access::ReadWrite).unwrap();
    let mut events = back.events().unwrap();
    let far = events.bind_interdomain(FRONT, near).unwrap();
    let mut ports = Vec::new();
    events.pending(&mut ports).unwrap();
    assert_eq!(ports, [far]);
    events.unmask(far).unwrap();

    let again = Domain::simulated(&socket, FRONT);
    assert!(
        matches!(again, Err(Error::DomainInUse { id: FRONT })),
        "{again:?}"
    );
    victim.kill();

    // The notice: its byte is cleared, its event comes.
    ports.clear();
    eventually("the event of the notice", || {
        events.pending(&mut ports).unwrap();
        (ports == [far]).then_some(())
    });
    let mut bytes = [9; 3];
    mapped.page(0).copy_out(99, &mut bytes);
    assert_eq!(bytes, [1, 0, 1]);

    // The port is closed at the other end, and ringing it is silent.
    events.notify(far).unwrap();
    eventually("the end of the port", || {
        events.bind_interdomain(FRONT, near).err()
    });

    // The page is still mapped here, so it is kept; then it is gone.
    mapped.page(0).copy_in(0, b"mine");
    drop(mapped);
    eventually("the end of the grant", || {
        (status(&mut foreign, gref) == CopyStatus::NotGranted).then_some(())
    });

    // What the dead process had mapped of ours is ours again.
    drop(own);
    let front = eventually("a place for a new process", || {
        Domain::simulated(&socket, FRONT).ok()
    });
    assert_eq!(
        status(&mut front.foreign(BACK).unwrap(), own_gref),
        CopyStatus::NotGranted
    );

    // The guest lives on: its store entries are there, and its new process shares and binds anew.
    let mut store = front.store().unwrap();
    assert_eq!(store.read("data/gref").unwrap(), Some(gref.to_string()));
    let shared = front.share(BACK, 1, Access::ReadWrite).unwrap();
    assert_ne!(
        shared.reference(0),
        gref,
        "a stale reference must stay stale"
    );
    assert_eq!(status(&mut foreign, shared.reference(0)), CopyStatus::Okay);
    assert_eq!(front.events().unwrap().bind_unbound(BACK).unwrap(), near);
}

#[test]
fn a_new_process_does_not_use_a_page_that_a_peer_still_has_from_the_old_one() {
    let (folder, _server) = xen(Options::new());
    let socket = folder.path().join("xen");
    let back = Domain::simulated(&socket, BACK).unwrap();
    let front = Domain::simulated(&socket, FRONT).unwrap();
    let shared = front.share(BACK, 1, Access::ReadWrite).unwrap();
    let gref = shared.reference(0);
    let mapped = back
        .foreign(FRONT)
        .unwrap()
        .map(&[gref], Access::ReadWrite)
        .unwrap();
    drop((shared, front));
    let front = eventually("a place", || Domain::simulated(&socket, FRONT).ok());
    for _ in 0..20 {
        let others = front.share(BACK, 1000, Access::ReadWrite).unwrap();
        assert!((0..1000).all(|index| others.reference(index) != gref));
    }
    drop(mapped);
}

#[test]
fn a_domain_shares_no_more_than_its_limit() {
    let (folder, _server) = xen(Options::new().grant_limit(10));
    let front = Domain::simulated(&folder.path().join("xen"), FRONT).unwrap();
    assert_eq!(front.grant_limit().unwrap(), Some(10));
    let some = front.share(BACK, 8, Access::ReadOnly).unwrap();
    match front.share(BACK, 3, Access::ReadOnly) {
        Err(Error::GrantLimit {
            wanted: 3,
            shared: 8,
            limit: 10,
        }) => {}
        other => panic!("{other:?}"),
    }
    drop(some);
    front.share(BACK, 10, Access::ReadOnly).unwrap();
}

#[test]
fn a_domain_that_was_never_introduced_has_no_memory_to_map() {
    let (folder, _server) = xen(Options::new());
    let front = Domain::simulated(&folder.path().join("xen"), FRONT).unwrap();
    let result = front.foreign(DomId(99));
    assert!(
        matches!(result, Err(Error::NoSuchDomain { id: DomId(99) })),
        "{result:?}"
    );
}

#[test]
fn a_tool_sees_the_store_of_a_domain_without_standing_on_it() {
    let (folder, _server) = xen(Options::new());
    let socket = folder.path().join("xen");
    for client in StoreClient::available() {
        let mut tool = hypervisor::sim::store(&socket, BACK, *client).unwrap();
        tool.write("/local/domain/5/device/vif/0/state", "1")
            .unwrap();
    }
    let back = Domain::simulated(&socket, BACK).unwrap();
    let path = "/local/domain/5/device/vif/0/state";
    assert_eq!(
        back.store().unwrap().read(path).unwrap().as_deref(),
        Some("1")
    );
}

#[test]
fn two_servers_on_one_socket_are_refused() {
    let (folder, _server) = xen(Options::new());
    let socket = folder.path().join("xen");
    let error = server::run(&socket, Options::new()).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("another simulated Xen serves there"),
        "{error}"
    );
    assert!(is_running(&socket).unwrap());
}

#[test]
fn the_socket_of_a_dead_server_is_replaced_and_a_file_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("xen");
    drop(UnixListener::bind(&socket).unwrap());
    assert!(!is_running(&socket).unwrap());
    let server = server::spawn(&socket, Options::new()).unwrap();
    assert!(is_running(&socket).unwrap());
    drop(server);
    assert_eq!(
        std::fs::read_dir(folder.path()).unwrap().count(),
        0,
        "files were left behind"
    );

    std::fs::write(&socket, "precious").unwrap();
    assert!(matches!(
        server::run(&socket, Options::new()),
        Err(Error::Invalid { .. })
    ));
    assert_eq!(std::fs::read_to_string(&socket).unwrap(), "precious");
}

#[test]
fn the_socket_of_another_service_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("xen");
    let _other = UnixListener::bind(&socket).unwrap();
    assert!(matches!(is_running(&socket), Err(Error::Invalid { .. })));
    let started = ensure_running(&socket, || panic!("started beside another service"));
    assert!(matches!(started, Err(Error::Invalid { .. })), "{started:?}");
    assert!(matches!(
        server::run(&socket, Options::new()),
        Err(Error::Invalid { .. })
    ));
    std::os::unix::net::UnixStream::connect(&socket).unwrap();
}

#[test]
fn a_server_that_nobody_uses_ends_after_its_linger_time() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("xen");
    let options = Options::new().linger(Duration::from_millis(300));
    let thread = std::thread::spawn({
        let socket = socket.clone();
        move || server::run(&socket, options)
    });
    let domain = eventually("the server", || Domain::simulated(&socket, FRONT).ok());
    std::thread::sleep(Duration::from_millis(900));
    assert!(
        is_running(&socket).unwrap(),
        "it must not end under a domain"
    );
    drop(domain);
    eventually("the end of the server", || {
        thread.is_finished().then_some(())
    });
    thread.join().unwrap().unwrap();
    assert!(!is_running(&socket).unwrap());
}

#[test]
fn a_server_is_started_when_none_is_there_and_only_then() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("xen");
    let mut server = None;
    ensure_running(&socket, || {
        let started = server::spawn(&socket, Options::new()).map_err(io::Error::other)?;
        server = Some(started);
        Ok(())
    })
    .unwrap();
    assert!(server.is_some());
    ensure_running(&socket, || Err(io::Error::other("started twice"))).unwrap();
    drop(server);
    let error = ensure_running(&socket, || Err(io::Error::other("no")));
    assert!(matches!(error, Err(Error::System { .. })));
}

#[test]
fn nobody_there_is_an_error_that_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let error = Domain::simulated(&folder.path().join("xen"), FRONT).unwrap_err();
    assert!(
        error.to_string().contains("there is no such socket"),
        "{error}"
    );
    let long = folder.path().join("x".repeat(200));
    let error = server::run(&long, Options::new()).unwrap_err();
    assert!(error.to_string().contains("too long"), "{error}");
}

#[test]
fn a_server_that_is_gone_is_an_error_and_no_hang() {
    let (folder, server) = xen(Options::new());
    let front = Domain::simulated(&folder.path().join("xen"), FRONT).unwrap();
    let mut events = front.events().unwrap();
    let port = events.bind_unbound(BACK).unwrap();
    let mut stores: Vec<Box<dyn Store>> = StoreClient::available()
        .iter()
        .map(|client| front.store_with(*client).unwrap())
        .collect();
    stores.push(Box::new(front.native_store().unwrap()));
    drop(server);
    // A handle with a port asks the store first whether the port still lives.
    assert!(matches!(
        events.bind_unbound(BACK),
        Err(Error::Unavailable { .. })
    ));
    assert!(matches!(
        events.bind_unbound(BACK),
        Err(Error::Unavailable { .. })
    ));
    for store in &mut stores {
        let started = Instant::now();
        assert!(store.read("domid").is_err());
        assert!(started.elapsed() < DEADLINE);
    }
    // What is only memory goes on.
    events.notify(port).unwrap();
    drop(front.share(BACK, 1, Access::ReadOnly).unwrap());
}

#[test]
fn a_store_that_never_answers_is_given_up_at_the_deadline() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("store");
    let listener = UnixListener::bind(&socket).unwrap();
    let mut store = NativeStore::connect(&socket).unwrap();
    store.set_deadline(Duration::from_millis(50));
    let result = store.read("domid");
    assert!(matches!(result, Err(Error::TimedOut { .. })), "{result:?}");
    let (mut accepted, _) = listener.accept().unwrap();
    let mut asked = [0; 16 + 6];
    accepted.read_exact(&mut asked).unwrap();
    drop(accepted);
    drop(listener);
    for _ in 0..2 {
        let result = store.read("domid");
        assert!(matches!(result, Err(Error::Gone { .. })), "{result:?}");
        let result = store.next_event(Duration::from_secs(60));
        assert!(matches!(result, Err(Error::Gone { .. })), "{result:?}");
    }
}

#[test]
fn nonsense_on_the_sockets_harms_nobody() {
    use rustix::net::{send, SendFlags};
    let (folder, _server) = xen(Options::new());
    let socket = folder.path().join("xen");
    let front = Domain::simulated(&socket, FRONT).unwrap();
    let address = rustix::net::SocketAddrUnix::new(&socket).unwrap();
    let control = rustix::net::socket(
        rustix::net::AddressFamily::UNIX,
        rustix::net::SocketType::SEQPACKET,
        None,
    )
    .unwrap();
    rustix::net::connect(&control, &address).unwrap();
    for length in [1usize, 20, 21, 4000] {
        send(&control, &vec![0xa5u8; length], SendFlags::NOSIGNAL).unwrap();
    }
    let mut store_socket = socket.into_os_string();
    store_socket.push(".store-5");
    let stream = std::os::unix::net::UnixStream::connect(&store_socket).unwrap();
    io::Write::write_all(&mut &stream, &[0xff; 64]).unwrap();
    let mut rest = Vec::new();
    // Cut off, since nothing after a frame of 4 GiB can be understood.
    let _ = (&stream).read_to_end(&mut rest);
    assert_eq!(
        front.store().unwrap().read("domid").unwrap().as_deref(),
        Some("5")
    );
    front.events().unwrap().bind_unbound(BACK).unwrap();
}

#[test]
fn a_store_client_that_reads_nothing_is_cut_off_and_others_go_on() {
    let (folder, _server) = xen(Options::new());
    let front = Domain::simulated(&folder.path().join("xen"), FRONT).unwrap();
    let mut deaf = front.native_store().unwrap();
    deaf.watch(
        "data",
        "a token that is long enough to fill the socket soon",
    )
    .unwrap();
    let mut store = front.native_store().unwrap();
    let name = format!("data/{}", "n".repeat(1000));
    for _ in 0..3000 {
        store.write(&name, "").unwrap();
    }
    assert_eq!(store.read("domid").unwrap().as_deref(), Some("5"));
    let result = eventually("the end of the connection", || {
        deaf.next_event(Duration::from_secs(1)).err()
    });
    assert!(matches!(result, Error::Gone { .. }), "{result:?}");
}
