//! What all requests share: the core once the database has answered, the channels, who may ask.
//!
//! A change and the message that follows it run in a task of their own: a client that leaves ends
//! neither. The message goes out after the change is stored, and is never sent a second time.

use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};
use std::time::Duration;

use crate::registrar::channels::Channels;
use crate::registrar::registrations::Outcome as Sending;
use crate::registrar::registrations::{Caller, Changed, Core, Keyed, Mine, Transition};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::registrar::api::{Change, Channel, Outgoing, Reply, Shown};
use crate::registrar::service::callers::Callers;
use crate::registrar::service::counters::Counters;
use crate::registrar::service::health::Health;
use crate::registrar::{Clock, Problem};

/// Messages on their way at once; more registrations are put off.
const SENDS_MAX: usize = 4_096;
/// Bodies of heartbeats in memory at once.
const LARGE_MAX: usize = 16;
/// How long a registrar that leaves waits for messages on their way.
const LEAVE_TIME: Duration = Duration::from_secs(15);
/// For how long it is tried to note what became of a message: a code is void after that.
const NOTE_TIME: Duration = Duration::from_secs(600);
/// The longest time between two attempts.
const NOTE_WAIT_MAX: Duration = Duration::from_secs(30);
/// When to come again while something is not there.
const RETRY_SECONDS: u64 = 5;

/// What all requests share.
pub(crate) struct Service {
    core: OnceLock<Core>,
    pub(crate) channels: Channels,
    callers: RwLock<Arc<Callers>>,
    pub(crate) counters: Counters,
    pub(crate) health: Health,
    pub(crate) clock: Clock,
    sends: Arc<Semaphore>,
    large: Arc<Semaphore>,
    /// Something was proved, of which others may have to be told.
    pub(crate) proved: Notify,
    /// Something was vouched for, which waits for the log if there is one.
    pub(crate) vouched: Notify,
    /// States were updated.
    pub(crate) swept: Notify,
    tasks: Mutex<JoinSet<()>>,
}

impl Service {
    pub(crate) fn new(channels: Channels, callers: Callers, clock: Clock) -> Self {
        Self {
            core: OnceLock::new(),
            channels,
            callers: RwLock::new(Arc::new(callers)),
            counters: Counters::default(),
            health: Health::default(),
            clock,
            sends: Arc::new(Semaphore::new(SENDS_MAX)),
            large: Arc::new(Semaphore::new(LARGE_MAX)),
            proved: Notify::new(),
            vouched: Notify::new(),
            swept: Notify::new(),
            tasks: Mutex::default(),
        }
    }

    pub(crate) fn now(&self) -> u64 {
        (self.clock)()
    }

    /// The core, once the database has answered.
    pub(crate) fn core(&self) -> Option<&Core> {
        self.core.get()
    }

    /// The database has answered for the first time.
    pub(crate) fn begin(&self, core: Core) {
        // One task does this, once.
        let _ = self.core.set(core);
        self.health.found();
    }

    pub(crate) fn callers(&self) -> Arc<Callers> {
        self.callers.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn replace_callers(&self, callers: Callers) {
        *self.callers.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(callers);
    }

    /// Messages on their way.
    pub(crate) fn sending(&self) -> usize {
        SENDS_MAX - self.sends.available_permits()
    }

    /// Refuses at once while the database is known not to answer.
    pub(crate) fn check_database(&self) -> Result<(), Problem> {
        match self.health.is_up() {
            true => Ok(()),
            false => Err(unavailable()),
        }
    }

    pub(crate) fn room_for_large(&self) -> Result<OwnedSemaphorePermit, Problem> {
        self.large.clone().try_acquire_owned().map_err(|_| overloaded("too many long bodies"))
    }

    /// A place for a message that may follow, on a channel that works.
    fn place_to_send(&self, channel: Channel) -> Result<OwnedSemaphorePermit, Problem> {
        if let Err(seconds) = self.channels.is_up(channel) {
            return Err(channel_down(seconds));
        }
        self.place()
    }

    /// The same where the channel is not known before the database is asked.
    fn place_to_resend(&self) -> Result<OwnedSemaphorePermit, Problem> {
        let waits = [Channel::Sms, Channel::Call, Channel::Email]
            .map(|channel| self.channels.is_up(channel).err());
        match waits.iter().flatten().min().filter(|_| waits.iter().all(Option::is_some)) {
            Some(&seconds) => Err(channel_down(seconds)),
            None => self.place(),
        }
    }

    fn place(&self) -> Result<OwnedSemaphorePermit, Problem> {
        let place = self.sends.clone().try_acquire_owned();
        place.map_err(|_| overloaded("too many messages on their way"))
    }

    /// Changes what `change` says, once for its key; the reply is there when it is stored.
    pub(crate) async fn change(
        self: &Arc<Self>,
        ap: String,
        key: String,
        digest: [u8; 32],
        change: Change,
    ) -> Result<Reply, Problem> {
        let place = match &change {
            Change::Register(new) => Some(self.place_to_send(new.channel)?),
            Change::Resend { .. } => Some(self.place_to_resend()?),
            _ => None,
        };
        let (reply, replied) = oneshot::channel();
        let service = self.clone();
        self.spawn(async move {
            let keyed = Keyed { key: &key, digest };
            let changed = service.changed(&Caller { ap: &ap }, &keyed, change).await;
            let (changed, outgoing) = match changed {
                Ok(Changed { reply, outgoing, .. }) => (Ok(reply), outgoing),
                Err(problem) => (Err(problem), None),
            };
            // Whether or not the client is still there.
            let _ = reply.send(changed);
            if let Some(outgoing) = outgoing {
                service.send(outgoing).await;
            }
            drop(place);
        });
        replied.await.unwrap_or_else(|_| Err(internal()))
    }

    async fn changed(
        &self,
        caller: &Caller<'_>,
        keyed: &Keyed<'_>,
        change: Change,
    ) -> Result<Changed, Problem> {
        let core = self.core().ok_or_else(unavailable)?;
        let changed = core.change(caller, keyed, change, self.now()).await;
        let changed = changed.map_err(|problem| self.noted(problem))?;
        for &(to, count) in &changed.transitions {
            self.counters.transitions(to, count);
            if to == Transition::Active {
                self.proved.notify_one();
                self.vouched.notify_one();
            }
        }
        Ok(changed)
    }

    /// Hands a message to the channels, and notes what became of it.
    async fn send(&self, outgoing: Outgoing) {
        let id = outgoing.id.clone();
        let sent = self.channels.send(outgoing).await;
        let to = if sent.is_ok() { Transition::Sent } else { Transition::NotSent };
        self.counters.transitions(to, 1);
        if let Err(error) = &sent {
            tracing::warn!(%error, "a message was not sent");
        }
        let sent = if sent.is_ok() { Sending::Accepted } else { Sending::Refused };
        let noted = timeout(NOTE_TIME, self.note(&id, sent));
        if noted.await.is_err() {
            tracing::error!("what became of a message could not be noted in time");
        }
    }

    async fn note(&self, id: &str, sent: Sending) {
        let mut wait = Duration::from_secs(1);
        while let Some(core) = self.core() {
            match core.sent(id, sent, self.now()).await {
                Ok(()) => return,
                Err(problem) => drop(self.noted(problem)),
            }
            sleep(wait).await;
            wait = (2 * wait).min(NOTE_WAIT_MAX);
        }
    }

    /// What an application provider is told of its own registration.
    pub(crate) async fn show(&self, ap: &str, id: &str) -> Result<Shown, Problem> {
        let core = self.core().ok_or_else(unavailable)?;
        let shown = core.show(&Caller { ap }, id, self.now()).await;
        shown.map_err(|problem| self.noted(problem))
    }

    /// Every mapping of the user's identifier.
    pub(crate) async fn mine(&self, token: &str) -> Result<Vec<Mine>, Problem> {
        let core = self.core().ok_or_else(unavailable)?;
        core.mine(token, self.now()).await.map_err(|problem| self.noted(problem))
    }

    /// The same problem; where it says that the database is away, somebody looks at once.
    fn noted(&self, problem: Problem) -> Problem {
        if problem.status == 503 && problem.code == "unavailable" {
            self.health.doubt();
        }
        problem
    }

    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        while tasks.try_join_next().is_some() {}
        tasks.spawn(task);
    }

    /// Ends when the messages on their way have ended, or after [`LEAVE_TIME`].
    pub(crate) async fn finish(&self) {
        let mut tasks =
            std::mem::take(&mut *self.tasks.lock().unwrap_or_else(PoisonError::into_inner));
        let all = async { while tasks.join_next().await.is_some() {} };
        if timeout(LEAVE_TIME, all).await.is_err() {
            tracing::warn!("gave up on messages that did not go out in time");
        }
    }
}

fn unavailable() -> Problem {
    let found = "a database that does not answer";
    Problem::new(503, "unavailable", found, "the same request, later").retry_after(RETRY_SECONDS)
}

fn channel_down(seconds: u64) -> Problem {
    let found = "a channel that no gateway serves now; nothing was stored";
    let expected = "the same request later, or another channel";
    Problem::new(503, "channel_down", found, expected).retry_after(seconds)
}

fn overloaded(found: &str) -> Problem {
    Problem::new(503, "overloaded", found, "the same request, later").retry_after(1)
}

/// A failure of the service itself, as clients see it.
pub(crate) fn internal() -> Problem {
    Problem::new(500, "internal", "a failure of this service", "its operator to read the log")
}
