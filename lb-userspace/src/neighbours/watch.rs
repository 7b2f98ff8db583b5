//! The task that keeps a [`Table`] in step with the kernel and publishes what follows from it.

use std::{
    collections::{BTreeMap, BTreeSet},
    convert::Infallible,
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

use futures_util::FutureExt;
use log::{debug, warn};
use tokio::{
    sync::watch,
    task::AbortHandle,
    time::{Instant, sleep, sleep_until, timeout},
};

use super::{
    NextHops,
    rtnl::{Error, Event, Events, Kernel},
    table::{Request, Table},
};

/// Marks the neighbour entries that a watcher asked for: an origin number such as routes have
/// (`proto` in `ip neigh`), of those that the kernel leaves to user space.
pub const PROTOCOL: u8 = 69;

/// How often everything is read again although nothing was announced.
///
/// It finds what the kernel does not announce, such as IPv4 routes that went away unseen.
pub const REFRESH: Duration = Duration::from_secs(30);

/// How long announcements that concern routes are gathered before the routes are looked up.
pub const DEBOUNCE: Duration = Duration::from_millis(50);

/// The pause after reading everything, in proportion to the time that it took: announcements
/// that do not stop take at most a fifth of a CPU.
const REST: u32 = 4;

/// How many announcements are taken between two publications.
const BATCH: usize = 4096;

/// How long the kernel may take to answer before the sockets are opened anew.
const PATIENCE: Duration = Duration::from_secs(10);

/// The pause before the sockets are opened anew.
const RECONNECT: Duration = Duration::from_secs(1);

/// Follows the next hops of a set of addresses until it is dropped.
#[derive(Debug)]
pub struct Watcher {
    addresses: watch::Sender<BTreeSet<IpAddr>>,
    task: AbortHandle,
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Watcher {
    /// Starts to follow the next hops of `addresses`, in the network namespace of the threads
    /// of the current runtime.
    ///
    /// The receiver starts with an empty value that counts as seen; the first *change* comes when
    /// all addresses have been looked at. From then on it holds the latest state, and changes
    /// only when that does. Failures are logged and tried again, so it never ends by itself.
    /// Dropping the watcher ends it at once, and leaves the kernel's entries as they are.
    ///
    /// # Panics
    /// Outside of a tokio runtime with input, output and time enabled.
    pub fn spawn(addresses: BTreeSet<IpAddr>) -> (Self, watch::Receiver<Arc<NextHops>>) {
        let (addresses, followed) = watch::channel(addresses);
        let (published, receiver) = watch::channel(Arc::default());
        let task = tokio::spawn(run(followed, published)).abort_handle();
        (Self { addresses, task }, receiver)
    }

    /// Follows these addresses instead, and keeps what is known of those that stay.
    ///
    /// A watcher outlives changes of the configuration for that reason: a new one would not know
    /// the last MAC address of a backend that is silent just now.
    pub fn follow(&self, addresses: BTreeSet<IpAddr>) {
        self.addresses.send_if_modified(|followed| {
            let differs = *followed != addresses;
            *followed = addresses;
            differs
        });
    }
}

async fn run(
    mut addresses: watch::Receiver<BTreeSet<IpAddr>>,
    published: watch::Sender<Arc<NextHops>>,
) {
    let mut publisher = Publisher {
        published,
        is_first: true,
    };
    let mut table = Table::default();
    loop {
        let Err(error) = follow_kernel(&mut table, &mut addresses, &mut publisher).await;
        warn!("next hops are not followed for now: {error}; trying again in {RECONNECT:?}");
        sleep(RECONNECT).await;
    }
}

/// Sends a state on if it differs from the last one, and the first in any case.
struct Publisher {
    published: watch::Sender<Arc<NextHops>>,
    is_first: bool,
}

impl Publisher {
    fn publish(&mut self, state: NextHops) {
        let is_first = std::mem::take(&mut self.is_first);
        self.published.send_if_modified(|last| {
            let differs = **last != state;
            if differs {
                *last = Arc::new(state);
            }
            differs || is_first
        });
    }
}

async fn follow_kernel(
    table: &mut Table,
    addresses: &mut watch::Receiver<BTreeSet<IpAddr>>,
    publisher: &mut Publisher,
) -> Result<Infallible, Error> {
    // Listening begins before the first look: what changes in between is announced.
    let mut events = Events::connect()?;
    let mut kernel = Kernel::connect()?;
    let mut refresh_at = Instant::now();
    let mut not_before = refresh_at;
    loop {
        if refresh_at.max(not_before) <= Instant::now() {
            let begin = Instant::now();
            let wanted = addresses.borrow_and_update().clone();
            in_time(refresh(table, &kernel, &wanted)).await?;
            let end = Instant::now();
            debug!("looked {} addresses up in {:?}", wanted.len(), end - begin);
            refresh_at = end + REFRESH;
            not_before = end + (end - begin) * REST;
        }
        in_time(ask(table, &mut kernel)).await?;
        publisher.publish(table.answer());

        let wake_at = table
            .next_request()
            .map_or(refresh_at.max(not_before), |at| {
                refresh_at.max(not_before).min(Instant::from_std(at))
            });
        tokio::select! {
            event = events.next() => {
                let mut is_route = take(table, event?);
                // What else is there already is taken too, so that it is published once.
                for _ in 0..BATCH {
                    let Some(event) = events.next().now_or_never() else { break };
                    is_route |= take(table, event?);
                }
                if is_route {
                    refresh_at = refresh_at.min(Instant::now() + DEBOUNCE);
                }
            }
            // The sender lives as long as this task: dropping it aborts the task.
            Ok(()) = addresses.changed() => refresh_at = Instant::now(),
            () = sleep_until(wake_at) => {}
        }
    }
}

async fn in_time<T>(work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    timeout(PATIENCE, work)
        .await
        .unwrap_or(Err(Error::NoAnswer))
}

/// Reads links, neighbours and the routes of `addresses`.
async fn refresh(
    table: &mut Table,
    kernel: &Kernel,
    addresses: &BTreeSet<IpAddr>,
) -> Result<(), Error> {
    table.replace_links(kernel.links().await?);
    table.replace_neighbours(kernel.neighbours().await?);
    let mut routes = BTreeMap::new();
    for &address in addresses {
        routes.insert(address, kernel.route(address).await?);
    }
    table.replace_routes(routes);
    Ok(())
}

/// Passes on to the kernel what the table wants of it.
async fn ask(table: &mut Table, kernel: &mut Kernel) -> Result<(), Error> {
    for request in table.requests(Instant::now().into_std()) {
        let result = kernel.ask(request).await?;
        if let (Err(refusal), Request::Release(hop)) = (result, request) {
            warn!(
                "cannot release the neighbour entry of {}: {refusal}",
                hop.address
            );
        }
        table.answered(request, result, Instant::now().into_std());
    }
    Ok(())
}

/// Takes an announcement into the table; answers whether routes must be looked up again.
fn take(table: &mut Table, event: Event) -> bool {
    match event {
        Event::Link(link) => {
            table.update_link(link);
            true
        }
        Event::LinkGone(index) => {
            table.remove_link(index);
            true
        }
        Event::Neighbour(neighbour) => {
            table.update_neighbour(neighbour);
            false
        }
        Event::NeighbourGone(hop) => {
            table.remove_neighbour(hop);
            false
        }
        Event::Route(prefix, length) => table.is_concerned(prefix, length),
        Event::AnyRoute => true,
        Event::Overrun => {
            warn!("the kernel announced changes faster than they were read: reading all again");
            true
        }
    }
}
