//! No flow moves while its backend serves, whatever changes: random sequences of changes and
//! flows, through the decision itself in plain memory and the code that plans and sweeps.

use std::{collections::BTreeMap, net::SocketAddr, num::NonZeroU16, ops::Range};

use lb_common::{
    decide,
    flow::Flow,
    host::{Frame, Host},
    layout::{FlowEntry, SMALL_RING_SLOTS, TICK_NS},
    testing::Plan,
    verdict::Verdict,
};
use lb_userspace::{
    balance::{
        image::{Common, Image, Numbers, ServicePlan, Way},
        plan::{self, Base, Standing},
        sweep::{Fate, Learned, Limits, Pass, Table},
        transition::{Live, names_endpoint},
    },
    model::{
        Backend, Fraction, Mode, OnEmpty, Options, Protocol, RingSize, RingSlots, Service,
        ServiceKey, ServicePort, Weight,
    },
};
use proptest::{collection::vec, prelude::*, sample::select};

const INGRESS: u32 = 1;
const BACKENDS: u8 = 5;
const CLIENTS: Range<u16> = 0..48;
/// In seconds.
const WINDOW: u64 = 120;
const CLOSING: u64 = 75;
const IDLE: u64 = 300;
/// How long a flow is silent at most: before its second packet, and after it.
const SILENCE: [u64; 2] = [40, 90];
const STEP: u64 = 20;

const SYN: u8 = 0x02;
const ACK: u8 = 0x10;
const FIN: u8 = 0x01;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Health {
    Up,
    Draining,
    Dead,
    Removed,
}

/// What happens in a step.
#[derive(Clone, Debug)]
enum Step {
    Set(u8, Health),
    Weigh(u8, u16),
    Resize(u32),
    Open(u16),
    Talk(u16),
    Close(u16),
    /// The client is gone without a word.
    Vanish(u16),
    Wait(u64),
    /// The first half of a pass, of the fresh flows.
    SweepFresh,
    /// The second half, and what follows from it.
    SweepEstablished,
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    use Health::{Dead, Draining, Removed, Up};
    prop_oneof![
        3 => (0..BACKENDS, select(vec![Up, Up, Draining, Dead, Removed]))
            .prop_map(|(b, s)| Step::Set(b, s)),
        1 => (0..BACKENDS, 1_u16..4).prop_map(|(b, w)| Step::Weigh(b, w)),
        1 => select(vec![256, 512, 1_024]).prop_map(Step::Resize),
        12 => CLIENTS.prop_map(Step::Open),
        8 => CLIENTS.prop_map(Step::Talk),
        3 => CLIENTS.prop_map(Step::Close),
        1 => CLIENTS.prop_map(Step::Vanish),
        8 => (1..=STEP).prop_map(Step::Wait),
        4 => Just(Step::SweepFresh),
        4 => Just(Step::SweepEstablished),
        1 => Just(Step::Restart),
    ]
}

/// A flow as its client sees it.
#[derive(Clone, Copy, Debug)]
struct Connection {
    backend: u8,
    talked: bool,
    at: u64,
}

struct World {
    host: Host,
    numbers: Numbers,
    image: Option<Image>,
    pass: Option<Pass>,
    learned: Option<Learned>,
    standing: [Health; BACKENDS as usize],
    weights: [u16; BACKENDS as usize],
    slots: u32,
    now: u64,
    connections: BTreeMap<u16, Connection>,
}

fn key() -> ServiceKey {
    ServiceKey {
        vip: [198, 51, 100, 10].into(),
        port: ServicePort::Exact(NonZeroU16::new(80).expect("it was made to be valid")),
        protocol: Protocol::Tcp,
    }
}

impl World {
    fn new() -> Self {
        let mut world = Self {
            host: Host::default(),
            numbers: Numbers::default(),
            image: None,
            pass: None,
            learned: None,
            standing: [Health::Up; BACKENDS as usize],
            weights: [1; BACKENDS as usize],
            slots: 256,
            now: 1_000_000,
            connections: BTreeMap::new(),
        };
        world.publish();
        world
    }

    fn service(&self) -> Service {
        let backend = |id: u8| Backend {
            name: format!("b{id}").into(),
            address: [10, 0, 0, id].into(),
            weight: Weight::new(match self.standing[usize::from(id)] {
                Health::Draining => 0,
                _ => self.weights[usize::from(id)],
            })
            .expect("it was made to be valid"),
            capacity: None,
            port: None,
            server_id: None,
        };
        Service {
            name: "web".into(),
            key: key(),
            mode: Mode::Dsr,
            ring_slots: RingSize::Fixed(
                RingSlots::new(self.slots).expect("it was made to be valid"),
            ),
            on_empty: OnEmpty::Drop,
            options: Options::default(),
            health: None,
            backends: (0..BACKENDS)
                .filter(|&id| self.standing[usize::from(id)] != Health::Removed)
                .map(backend)
                .collect(),
        }
    }

    /// Publishes what follows from the present, as the controller does.
    fn publish(&mut self) {
        let service = self.service();
        self.numbers
            .assign(std::slice::from_ref(&service))
            .expect("it was made to be valid");
        let ids: Vec<u8> = (0..BACKENDS)
            .filter(|&id| self.standing[usize::from(id)] != Health::Removed)
            .collect();
        let standing = |is: fn(Health) -> bool| -> Vec<bool> {
            ids.iter()
                .map(|&id| is(self.standing[usize::from(id)]))
                .collect()
        };
        let serves = standing(|s| s != Health::Dead);
        let fractions: Vec<Fraction> = standing(|s| s == Health::Up)
            .into_iter()
            .map(|up| if up { Fraction::FULL } else { Fraction::NONE })
            .collect();
        let ends = self.numbers.of_backends(&service);
        let number = self
            .numbers
            .service(&service.key)
            .expect("it was made to be valid");
        let leaving: Vec<u16> = self.numbers.leaving_from(number).collect();
        let live = self.image.as_ref();
        let next = Base::new(&service, 0.02)
            .expect("it was made to be valid")
            .next(&Standing {
                live: live.map_or(Live::Nothing, |live| live.live(number)),
                ends: &ends,
                fractions: &fractions,
                leaving: &leaving,
                serves: &plan::serving(live, &leaving, &ends, &serves),
                clean: match &self.learned {
                    Some(learned) => &learned.services[usize::from(number)].clean,
                    None => &[],
                },
                now: self.now,
                window: WINDOW,
            });
        let way = |&id: &u8| {
            Some(Way {
                interface: INGRESS,
                source: [2; 6],
                destination: [6, 0, 0, 0, 0, id],
                mtu: 1500,
                address: None,
            })
        };
        let plan = ServicePlan {
            service: &service,
            changed: next.as_ref().map_or(0, |next| next.changed),
            slots: next.map(|next| next.slots),
            serves,
            ways: ids.iter().map(way).collect(),
        };
        let image = Image::build(&[plan], &self.numbers, Common::seeded(7), live);
        if let Some(pass) = &mut self.pass {
            pass.published(&image);
        }
        self.learned = None;
        let rings = image.rings.iter().map(|(&n, slots)| (n, slots.to_vec()));
        (self.host.small_rings, self.host.rings) =
            rings.partition(|(_, slots)| slots.len() <= SMALL_RING_SLOTS);
        self.host.tables = Some(image.tables.clone());
        self.image = Some(image);
    }

    /// Sends a client's packet; answers the backend that gets it.
    fn send(&self, client: u16, flags: u8) -> Option<u8> {
        let from = SocketAddr::from(([203, 0, 113, 9], 1_024 + client));
        let to = SocketAddr::from(([198, 51, 100, 10], 80));
        let segment = Plan::tcp(from, to).segment(flags, 7);
        let mut frame = Frame::new(&segment.bytes(), INGRESS);
        match decide::process(&mut frame, &self.host) {
            Verdict::Transmit => Some(frame.bytes[5]),
            Verdict::Drop(_) => None,
            other => panic!("{other:?}"),
        }
    }

    fn open(&mut self, client: u16) {
        self.connections.remove(&client);
        if let Some(backend) = self.send(client, SYN) {
            let at = self.now;
            let talked = false;
            self.connections.insert(
                client,
                Connection {
                    backend,
                    talked,
                    at,
                },
            );
        }
    }

    fn talk(&mut self, client: u16, flags: u8) -> Result<(), TestCaseError> {
        let Some(connection) = self.connections.get(&client).copied() else {
            return Ok(());
        };
        prop_assert_eq!(
            self.send(client, flags),
            Some(connection.backend),
            "client {} moved",
            client
        );
        let (talked, at) = (true, self.now);
        self.connections.insert(
            client,
            Connection {
                talked,
                at,
                ..connection
            },
        );
        Ok(())
    }

    fn wait(&mut self, seconds: u64) -> Result<(), TestCaseError> {
        self.now += seconds;
        let ticks = (seconds * 1_000_000_000).div_ceil(TICK_NS) as u32;
        self.host.now.set(self.host.now.get().wrapping_add(ticks));
        let due = |c: &Connection| self.now - c.at >= SILENCE[usize::from(c.talked)] - STEP;
        let due: Vec<u16> = self
            .connections
            .iter()
            .filter(|(_, c)| due(c))
            .map(|(&client, _)| client)
            .collect();
        for client in due {
            self.talk(client, ACK)?;
        }
        // The controller looks each second whether a window is over.
        self.publish();
        Ok(())
    }

    fn set(&mut self, backend: u8, to: Health) {
        let standing = &mut self.standing[usize::from(backend)];
        // What is removed is not probed any more, and does not die by a probe.
        if *standing == Health::Removed && to != Health::Up {
            return;
        }
        // The last one stays: a configuration has one backend at least.
        let was = std::mem::replace(standing, to);
        if self.standing.iter().all(|&s| s == Health::Removed) {
            self.standing[usize::from(backend)] = was;
            return;
        }
        if to == Health::Dead {
            self.connections.retain(|_, c| c.backend != backend);
        }
        self.publish();
    }

    fn sweep(&mut self, table: Table) {
        let Some(image) = &self.image else { return };
        let limits = Limits {
            idle_tcp: ticks(IDLE),
            idle_udp: ticks(IDLE),
            closing: ticks(CLOSING),
        };
        if table == Table::Fresh {
            self.pass = Some(Pass::begin(image, limits));
        }
        let Some(pass) = &mut self.pass else { return };
        let entries: Vec<(Flow, FlowEntry)> = match table {
            Table::Fresh => &self.host.fresh,
            Table::Established => &self.host.established,
        }
        .borrow()
        .iter()
        .map(|(flow, entry)| (*flow, *entry))
        .collect();
        for (flow, entry) in entries {
            let fate = pass
                .judge(
                    &image.tables,
                    (table, &flow, &entry),
                    self.host.now.get(),
                    |_| Err("no flow of this service has two entries"),
                )
                .expect("it was made to be valid");
            match (fate, table) {
                (Fate::Keep, _) => continue,
                (_, Table::Fresh) => self.host.fresh.borrow_mut().remove(&flow),
                (_, Table::Established) => self.host.established.borrow_mut().remove(&flow),
            };
        }
        if table == Table::Established {
            let learned = self.pass.take().expect("it was made to be valid").end();
            self.numbers.release(|n| learned.endpoints.contains(&n));
            self.learned = Some(learned);
            self.publish();
        }
    }

    fn apply(&mut self, step: &Step) -> Result<(), TestCaseError> {
        match *step {
            Step::Set(backend, to) => self.set(backend, to),
            Step::Weigh(backend, weight) => {
                self.weights[usize::from(backend)] = weight;
                self.publish();
            }
            Step::Resize(slots) => {
                self.slots = slots;
                self.publish();
            }
            Step::Open(client) => self.open(client),
            Step::Talk(client) => self.talk(client, ACK)?,
            Step::Close(client) => {
                self.talk(client, ACK | FIN)?;
                self.connections.remove(&client);
            }
            Step::Vanish(client) => {
                self.connections.remove(&client);
            }
            Step::Wait(seconds) => self.wait(seconds)?,
            Step::SweepFresh => self.sweep(Table::Fresh),
            Step::SweepEstablished => self.sweep(Table::Established),
            Step::Restart => {
                self.pass = None;
                self.learned = None;
                self.numbers =
                    Numbers::adopt(&self.image.as_ref().expect("it was made to be valid").tables);
                self.publish();
            }
        }
        Ok(())
    }
}

fn ticks(seconds: u64) -> u32 {
    (seconds * 1_000_000_000 / TICK_NS) as u32
}

/// A client that is remembered as its backend's, in a slot that is about to go elsewhere: it, its
/// backend, and another.
fn remembered_by(world: &mut World) -> Result<(u16, u8, u8), TestCaseError> {
    let client = 0;
    world.open(client);
    let backend = world.connections[&client].backend;
    world.set(backend, Health::Draining);
    world.talk(client, ACK)?;
    prop_assert_eq!(world.host.established.borrow().len(), 1);
    Ok((client, backend, (backend + 1) % BACKENDS))
}

/// What is left of a flow must not be taken for a later one with the same addresses and ports: not
/// where its slot was steady meanwhile.
#[test]
fn a_steady_slot_has_no_entry() -> Result<(), TestCaseError> {
    let mut world = World::new();
    let (client, backend, _) = remembered_by(&mut world)?;
    world.set(backend, Health::Up);
    for _ in 0..2 {
        world.sweep(Table::Fresh);
        world.sweep(Table::Established);
    }
    world.set(backend, Health::Dead);
    world.open(client);
    world.set(backend, Health::Up);
    world.talk(client, ACK)
}

/// The same where there was no ring meanwhile.
#[test]
fn a_ring_after_none_is_pinned() -> Result<(), TestCaseError> {
    let mut world = World::new();
    let (client, backend, other) = remembered_by(&mut world)?;
    for id in 0..BACKENDS {
        world.set(id, Health::Dead);
    }
    world.set(other, Health::Up);
    world.open(client);
    world.set(backend, Health::Up);
    world.talk(client, ACK)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(96) })]

    #[test]
    fn no_flow_moves_and_every_table_empties(steps in vec(step(), 50..400)) {
        let mut world = World::new();
        for step in &steps {
            world.apply(step)?;
        }
        let clients: Vec<u16> = world.connections.keys().copied().collect();
        for client in clients {
            world.talk(client, ACK)?;
        }
        // Quiet: nobody talks, nothing changes.
        world.connections.clear();
        for _ in 0..(IDLE + WINDOW) / STEP + 4 {
            world.wait(STEP)?;
            world.sweep(Table::Fresh);
            world.sweep(Table::Established);
        }
        prop_assert_eq!(world.host.fresh.borrow().len(), 0);
        prop_assert_eq!(world.host.established.borrow().len(), 0);
        let image = world.image.expect("it was made to be valid");
        for slot in image.rings.values().flat_map(|slots| slots.iter()) {
            prop_assert!(slot.is_steady(), "{:?}", slot);
            prop_assert!(names_endpoint(slot.owner()));
        }
        // A backend that was removed last may be the only one that serves.
        let usable = world.standing.contains(&Health::Up);
        prop_assert!(!usable || world.numbers.leaving().next().is_none());
        for ring in image.rings.values() {
            prop_assert!(!usable || ring.len() == world.slots as usize);
        }
    }
}
