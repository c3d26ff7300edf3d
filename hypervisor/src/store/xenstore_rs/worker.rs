//! The thread on which the crate runs: calls come by a channel, one at a time, each with a deadline.

use std::collections::HashMap;
use std::future::poll_fn;
use std::io;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{channel, sync_channel, Receiver, RecvTimeoutError, SyncSender};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use futures_core::Stream;
use tokio::runtime::Builder;
use tokio::sync::mpsc::{unbounded_channel, UnboundedReceiver, UnboundedSender};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use xenstore_rs::tokio::XsTokio;
use xenstore_rs::{AsyncWatch, AsyncXs};

use super::call::{Answer, Call};
use super::dial;
use super::queue::Queue;
use crate::store::WatchEvent;
use crate::Error;

/// An idle connection with watches is tried so long after it was last used, since nothing else tells that it died; and
/// then ever more rarely, since each try wakes the machine.
const PROBE: Duration = Duration::from_secs(5);
/// As rarely as this in the end.
const RAREST_PROBE: Duration = Duration::from_secs(60);

/// How much longer than the deadline the asking thread waits, in case the other one hangs itself:
/// the crate writes to the device in a loop that a full device would keep turning.
const GRACE: Duration = Duration::from_secs(1);

struct Command {
    call: Call,
    reply: SyncSender<Result<Answer, Error>>,
}

/// One connection and its thread. Dropping it closes both.
pub(super) struct Worker {
    commands: Option<UnboundedSender<Command>>,
    alive: Arc<AtomicBool>,
    deadline: Duration,
    /// Nothing is ever sent; it hangs up when the thread has ended.
    ended: Receiver<()>,
}

impl Worker {
    /// Connects, on a new thread.
    pub(super) fn start(
        socket: Option<PathBuf>,
        deadline: Duration,
        queue: Arc<Queue>,
    ) -> Result<Worker, Error> {
        let (commands, inbox) = unbounded_channel();
        let (ready, is_ready) = sync_channel(1);
        let (end, ended) = channel::<()>();
        let alive = Arc::new(AtomicBool::new(true));
        let life = Life {
            alive: Arc::clone(&alive),
            queue: Arc::clone(&queue),
            _end: end,
        };
        thread::Builder::new()
            .name("xenstore".into())
            .spawn(move || {
                let _life = life;
                run(socket, deadline, &queue, inbox, &ready);
            })
            .map_err(|source| Error::system("start the thread of the store client", source))?;
        let worker = Worker {
            commands: Some(commands),
            alive,
            deadline,
            ended,
        };
        // Our own connection and the crate's, each with its deadline.
        match is_ready.recv_timeout(deadline * 2 + GRACE) {
            Ok(connected) => connected.map(|()| worker),
            Err(_) => Err(Error::TimedOut {
                waiting_for: "a connection to the store".into(),
                after: deadline * 2 + GRACE,
            }),
        }
    }

    pub(super) fn is_alive(&self) -> bool {
        self.alive.load(Ordering::Acquire)
    }

    /// Asks and waits. After an error that leaves the connection in doubt it is dead.
    pub(super) fn call(&self, call: Call) -> Result<Answer, Error> {
        let (reply, answer) = sync_channel(1);
        let command = Command {
            call: call.clone(),
            reply,
        };
        let sent = self
            .commands
            .as_ref()
            .is_some_and(|commands| commands.send(command).is_ok());
        if !sent {
            self.alive.store(false, Ordering::Release);
            return Err(call.gone());
        }
        let answer = match answer.recv_timeout(self.deadline + GRACE) {
            Ok(answer) => answer,
            Err(RecvTimeoutError::Timeout) => Err(call.too_late(self.deadline + GRACE)),
            Err(RecvTimeoutError::Disconnected) => Err(call.gone()),
        };
        if let Err(Error::TimedOut { .. } | Error::Gone { .. }) = &answer {
            self.alive.store(false, Ordering::Release);
        }
        answer
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.commands = None;
        // So that the store has seen us go when this returns; a thread that hangs is left behind.
        let _ = self.ended.recv_timeout(GRACE);
    }
}

/// Tells that the thread has ended, however it did.
struct Life {
    alive: Arc<AtomicBool>,
    queue: Arc<Queue>,
    _end: std::sync::mpsc::Sender<()>,
}

impl Drop for Life {
    fn drop(&mut self) {
        self.alive.store(false, Ordering::Release);
        self.queue.ring();
    }
}

fn run(
    socket: Option<PathBuf>,
    deadline: Duration,
    queue: &Arc<Queue>,
    inbox: UnboundedReceiver<Command>,
    ready: &SyncSender<Result<(), Error>>,
) {
    let runtime = Builder::new_current_thread().enable_all().build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(source) => {
            let _ = ready.send(Err(Error::system("start the store client", source)));
            return;
        }
    };
    match dial::dial(&runtime, socket, deadline) {
        Ok(store) => {
            let _ = ready.send(Ok(()));
            runtime.block_on(serve(store, deadline, queue, inbox));
        }
        Err(error) => {
            let _ = ready.send(Err(error));
        }
    }
    // Opening the device may hang on a thread of the runtime; it is not waited for.
    runtime.shutdown_background();
}

type Watches = HashMap<(String, String), JoinHandle<()>>;

async fn serve(
    store: XsTokio,
    deadline: Duration,
    queue: &Arc<Queue>,
    mut inbox: UnboundedReceiver<Command>,
) {
    let mut watches = Watches::new();
    let mut pause = PROBE;
    loop {
        let command = match timeout(pause, inbox.recv()).await {
            Ok(Some(command)) => command,
            Ok(None) => return,
            Err(_) if watches.is_empty() || answers(&store, deadline).await => {
                pause = (pause * 2).min(RAREST_PROBE);
                continue;
            }
            Err(_) => return,
        };
        pause = PROBE;
        let call = &command.call;
        let answer = match timeout(deadline, perform(&store, queue, &mut watches, call)).await {
            Ok(answer) => answer,
            Err(_) => Err(call.too_late(deadline)),
        };
        let dead = matches!(answer, Err(Error::TimedOut { .. } | Error::Gone { .. }));
        let _ = command.reply.send(answer);
        if dead {
            return;
        }
    }
}

/// Whether the store still answers, be it with an error.
async fn answers(store: &XsTokio, deadline: Duration) -> bool {
    match timeout(deadline, AsyncXs::read(store, "domid")).await {
        Ok(Err(error)) => error.kind() != io::ErrorKind::BrokenPipe,
        Ok(Ok(_)) => true,
        Err(_) => false,
    }
}

async fn perform(
    store: &XsTokio,
    queue: &Arc<Queue>,
    watches: &mut Watches,
    call: &Call,
) -> Result<Answer, Error> {
    // A node that is not there is no error for who reads, lists or removes.
    let answer = match call {
        Call::Read { path } => match AsyncXs::read(store, path).await {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Answer::Value(None)),
            other => other.map(|value| Answer::Value(Some(value.into()))),
        },
        Call::List { path } => match AsyncXs::directory(store, path).await {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Answer::Names(Vec::new())),
            other => {
                other.map(|names| Answer::Names(names.into_iter().map(String::from).collect()))
            }
        },
        Call::Remove { path } => match AsyncXs::rm(store, path).await {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Answer::Done),
            other => other.map(|()| Answer::Done),
        },
        Call::Write { path, value } => AsyncXs::write(store, path, value)
            .await
            .map(|()| Answer::Done),
        Call::Watch { path, token } => match AsyncWatch::watch(store, path).await {
            Ok(stream) => {
                queue.push(
                    path,
                    WatchEvent {
                        path: path.clone(),
                        token: token.clone(),
                    },
                );
                let task = forward(stream, path.clone(), token.clone(), Arc::clone(queue));
                watches.insert((path.clone(), token.clone()), tokio::spawn(task));
                Ok(Answer::Done)
            }
            Err(error) => Err(error),
        },
        Call::Unwatch { path, token } => {
            if let Some(task) = watches.remove(&(path.clone(), token.clone())) {
                task.abort();
                // The task owns the stream, whose drop takes the watch back at the store.
                let _ = task.await;
            }
            Ok(Answer::Done)
        }
    };
    answer.map_err(|error| call.failed(&error))
}

/// Takes the events of one watch off the crate as they come.
async fn forward(
    stream: impl Stream<Item = Box<str>>,
    watched: String,
    token: String,
    queue: Arc<Queue>,
) {
    let mut stream = pin!(stream);
    while let Some(path) = poll_fn(|context| stream.as_mut().poll_next(context)).await {
        queue.push(
            &watched,
            WatchEvent {
                path: path.into(),
                token: token.clone(),
            },
        );
    }
}
