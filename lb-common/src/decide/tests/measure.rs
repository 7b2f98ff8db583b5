//! What is measured of flows in passing.

use std::{net::SocketAddr, vec, vec::Vec};

use super::bed::{Bed, to_vip};
use crate::{
    flow::{self, V4, V6},
    host::Frame,
    layout::mode,
    tables::{
        Failed::{self, Reset, Unanswered},
        Took::{self, Further, Handshake, Response},
    },
    testing::Plan,
    verdict::Verdict,
    wire::tcp::{ACK, FIN, RST, SYN},
};

const POOL: [&str; 2] = ["192.0.2.1", "2001:db8:5::1"];
const MODES: [u8; 5] = [mode::DSR, mode::IPIP, mode::GUE, mode::NAT, mode::SNAT];
const SEES_NO_REPLIES: [u8; 3] = [mode::DSR, mode::IPIP, mode::GUE];

/// A bed in which all flows are measured.
fn bed(of: u8, family: u8) -> Bed {
    let mut bed = Bed::new(of, family);
    for endpoint in &mut bed.tables().endpoints {
        endpoint.sampled = u16::MAX;
    }
    match of {
        mode::NAT => bed.nat(8080),
        mode::SNAT => {
            for number in 1..4 {
                bed.tables().endpoints[number].port = 8080u16.to_be();
            }
            bed.pool(&[POOL[usize::from(family == V6)]], 0xff);
        }
        _ => {}
    }
    bed
}

/// One connection, seen by the balancer.
struct Talk {
    bed: Bed,
    family: u8,
    client: Plan,
    /// What comes from the backend, once anything was sent there.
    backend: Option<Plan>,
}

impl Talk {
    fn new(of: u8, family: u8) -> Self {
        Self {
            bed: bed(of, family),
            family,
            client: to_vip(family),
            backend: None,
        }
    }

    /// The client's segment at a millisecond: its first byte's number, how many there are, and what
    /// it acknowledges.
    fn client(&mut self, ms: u64, flags: u8, (sequence, carries, acknowledged): (u32, usize, u32)) {
        let plan = Plan {
            payload: carries,
            ..self.client.clone().segment(flags, sequence)
        };
        let bytes = self.run(ms, &plan, acknowledged);
        let frame = Frame::new(&bytes, 1);
        let at = plan.network();
        let parsed = if self.family == V4 {
            flow::ipv4(&frame, at)
        } else {
            flow::ipv6(&frame, at)
        };
        // In a tunnel there is none.
        let Ok(parsed) = parsed else { return };
        let end = |address: [u32; 4], port: u16| {
            let ip: std::net::IpAddr = if self.family == V4 {
                address[3].to_ne_bytes().into()
            } else {
                bytemuck::cast::<_, [u8; 16]>(address).into()
            };
            SocketAddr::new(ip, u16::from_be(port))
        };
        let to = parsed.flow;
        self.backend = Some(Plan::tcp(
            end(to.destination, to.destination_port()),
            end(to.source, to.source_port()),
        ));
    }

    /// The backend's segment.
    fn backend(
        &mut self,
        ms: u64,
        flags: u8,
        (sequence, carries, acknowledged): (u32, usize, u32),
    ) {
        let plan = self.backend.clone().expect("something was sent there");
        let plan = Plan {
            payload: carries,
            ..plan.segment(flags, sequence)
        };
        self.run(ms, &plan, acknowledged);
    }

    fn run(&self, ms: u64, plan: &Plan, acknowledged: u32) -> Vec<u8> {
        self.bed.host.clock.set(ms * 1_000_000);
        let mut bytes = plan.bytes();
        let at = plan.transport() + 8;
        bytes[at..at + 4].copy_from_slice(&acknowledged.to_be_bytes());
        let (verdict, bytes) = self.bed.run(&bytes);
        assert_eq!(verdict, Verdict::Transmit);
        bytes
    }

    /// What was measured, in milliseconds.
    fn took(&self) -> Vec<(Took, u64)> {
        let took = self.bed.host.took.borrow();
        let ms = |&(endpoint, what, ns): &(u16, Took, u64)| {
            assert_eq!(endpoint, 1);
            (what, ns / 1_000_000)
        };
        took.iter().map(ms).collect()
    }

    /// How connections failed.
    fn failed(&self) -> Vec<Failed> {
        let failed = self.bed.host.failed.borrow();
        failed.iter().map(|&(_, how)| how).collect()
    }
}

fn each(modes: &[u8], check: impl Fn(Talk)) {
    for &of in modes {
        for family in [V4, V6] {
            check(Talk::new(of, family));
        }
    }
}

#[test]
fn without_replies_the_client_tells_what_it_has_got() {
    each(&SEES_NO_REPLIES, |mut talk| {
        talk.client(1, SYN, (100, 0, 0));
        talk.client(3, ACK, (101, 0, 500));
        talk.client(10, ACK, (101, 40, 500));
        // The rest of the request: what is measured begins with its end.
        talk.client(12, ACK, (141, 40, 500));
        talk.client(25, ACK, (181, 0, 1900));
        assert_eq!(talk.took(), [(Handshake, 2), (Response, 13)]);
        // And again; the next request may itself acknowledge the last of a response.
        talk.client(30, ACK, (181, 10, 1900));
        talk.client(37, ACK, (191, 10, 2900));
        talk.client(47, ACK | FIN, (201, 0, 3900));
        assert_eq!(talk.took()[2..], [(Further, 7), (Further, 10)]);
    });
}

#[test]
fn once_a_minute_a_response_is_a_flows_first() {
    each(&MODES, |mut talk| {
        let replies = matches!(talk.bed.tables().endpoints[1].mode, mode::NAT | mode::SNAT);
        talk.client(1, SYN, (100, 0, 0));
        let (mut asked, mut got) = (101, 500);
        for ms in [2_000, 10_000, 69_000, 71_000, 72_000, 200_000] {
            talk.client(ms, ACK, (asked, 10, got));
            (asked, got) = (asked + 10, got + 10);
            if replies {
                talk.backend(ms + 5, ACK, (got - 10, 10, asked));
            } else {
                talk.client(ms + 5, ACK, (asked, 0, got));
            }
        }
        let firsts: Vec<Took> = talk.took().iter().map(|&(what, _)| what).collect();
        let expected = [Response, Further, Further, Response, Further, Response];
        assert_eq!(firsts[usize::from(!replies)..], expected);
        // The next connection with the same ports is another flow.
        talk.client(201_000, SYN, (900, 0, 0));
        talk.client(201_001, ACK, (901, 10, 300));
        if replies {
            talk.backend(201_003, ACK, (300, 10, 911));
        } else {
            talk.client(201_003, ACK, (911, 0, 310));
        }
        assert_eq!(talk.took().last(), Some(&(Response, 2)));
    });
}

#[test]
fn replies_end_what_is_waited_for() {
    each(&[mode::NAT, mode::SNAT], |mut talk| {
        talk.client(1, SYN, (100, 0, 0));
        talk.backend(4, SYN | ACK, (499, 0, 101));
        talk.client(9, ACK, (101, 0, 500));
        talk.client(10, ACK, (101, 40, 500));
        // The kernel of the backend has it; the application has not answered.
        talk.backend(11, ACK, (500, 0, 141));
        talk.backend(25, ACK, (500, 1400, 141));
        talk.backend(26, ACK, (1900, 1400, 141));
        talk.client(90, ACK, (141, 0, 3300));
        assert_eq!(talk.took(), [(Handshake, 3), (Response, 15)]);
    });
}

#[test]
fn what_was_sent_again_is_not_measured() {
    each(&SEES_NO_REPLIES, |mut talk| {
        talk.client(1, SYN, (100, 0, 0));
        talk.client(1001, SYN, (100, 0, 0));
        talk.client(1002, SYN, (100, 0, 0));
        talk.client(1003, ACK, (101, 0, 500));
        talk.client(1010, ACK, (101, 40, 500));
        talk.client(1210, ACK, (101, 40, 500));
        talk.client(1220, ACK, (141, 0, 1900));
        assert_eq!(talk.took(), []);
        // Once for each connection, and none for a request that was lost on its way.
        assert_eq!(talk.failed(), [Unanswered]);
        talk.client(1300, ACK, (141, 40, 1900));
        talk.client(1305, ACK, (181, 0, 2900));
        assert_eq!(talk.took(), [(Response, 5)]);
    });
    each(&[mode::NAT, mode::SNAT], |mut talk| {
        talk.client(1, SYN, (100, 0, 0));
        talk.client(1001, SYN, (100, 0, 0));
        talk.backend(1002, SYN | ACK, (499, 0, 101));
        talk.client(1010, ACK, (101, 40, 500));
        talk.client(1210, ACK, (101, 40, 500));
        talk.backend(1220, ACK, (500, 10, 141));
        assert_eq!(talk.took(), []);
        talk.client(1300, ACK, (141, 40, 510));
        talk.backend(1305, ACK, (510, 10, 181));
        assert_eq!(talk.took(), [(Response, 5)]);
    });
}

#[test]
fn a_connection_that_is_reset_is_forgotten() {
    each(&MODES, |mut talk| {
        talk.client(1, SYN, (100, 0, 0));
        talk.client(2, ACK, (101, 40, 500));
        assert_eq!(talk.bed.host.waiting.borrow().len(), 1);
        talk.client(3, RST, (141, 0, 500));
        assert!(talk.bed.host.waiting.borrow().is_empty());
    });
    each(&[mode::NAT, mode::SNAT], |mut talk| {
        talk.client(1, SYN, (100, 0, 0));
        talk.backend(2, RST | ACK, (0, 0, 101));
        assert!(talk.bed.host.waiting.borrow().is_empty());
        assert_eq!(talk.took(), []);
        assert_eq!(talk.failed(), [Reset], "it was refused");
    });
}

#[test]
fn a_reset_is_a_failure_where_an_answer_was_due_and_the_client_did_not_give_up() {
    each(&[mode::NAT, mode::SNAT], |mut talk| {
        for (at, carries, expected) in [(1, 0, vec![]), (1001, 40, vec![Reset])] {
            talk.client(at, SYN, (100, 0, 0));
            talk.backend(at + 1, SYN | ACK, (499, 0, 101));
            talk.client(at + 2, ACK, (101, carries, 500));
            talk.backend(at + 3, RST | ACK, (500, 0, 101 + carries as u32));
            assert_eq!(talk.failed(), expected);
        }
        talk.client(2001, SYN, (100, 0, 0));
        talk.client(2002, RST, (101, 0, 500));
        assert_eq!(talk.failed(), [Reset], "and none by the client");
    });
}

#[test]
fn a_connection_that_is_known_late_is_measured_from_its_next_request() {
    each(&[mode::DSR, mode::NAT], |mut talk| {
        talk.client(1, ACK, (101, 0, 500));
        assert!(talk.bed.host.waiting.borrow().is_empty());
        talk.client(5, ACK, (101, 10, 500));
        talk.client(8, ACK, (111, 0, 900));
        let expected = if talk.bed.tables().endpoints[1].mode == mode::DSR {
            vec![(Response, 3)]
        } else {
            talk.backend(9, ACK, (500, 400, 111));
            vec![(Response, 4)]
        };
        assert_eq!(talk.took(), expected);
    });
}

#[test]
fn numbers_wrap() {
    each(&SEES_NO_REPLIES, |mut talk| {
        talk.client(1, ACK, (u32::MAX - 5, 10, u32::MAX - 1));
        talk.client(8, ACK, (4, 0, 20));
        assert_eq!(talk.took(), [(Response, 7)]);
    });
}

#[test]
fn what_takes_longer_than_a_minute_was_no_answer() {
    each(&[mode::DSR, mode::NAT], |mut talk| {
        talk.client(1, SYN, (100, 0, 0));
        if talk.bed.tables().endpoints[1].mode == mode::NAT {
            talk.backend(60_002, SYN | ACK, (499, 0, 101));
        } else {
            talk.client(60_002, ACK, (101, 0, 500));
        }
        assert_eq!(talk.took(), []);
    });
}

#[test]
fn datagrams_are_measured_where_answers_pass_by() {
    for of in MODES {
        for family in [V4, V6] {
            let mut talk = Talk::new(of, family);
            talk.client = Plan::udp(talk.client.source, talk.client.destination);
            let ask = |talk: &Talk, ms| talk.run_datagram(ms, &talk.client);
            let bytes = ask(&talk, 1);
            // The same question again, before there is an answer.
            ask(&talk, 5);
            if SEES_NO_REPLIES.contains(&of) {
                assert!(talk.bed.host.waiting.borrow().is_empty());
                continue;
            }
            let waiting = talk.bed.host.waiting.borrow();
            assert_eq!(waiting.len(), 1);
            let reply = waiting.keys().next().copied().unwrap();
            drop(waiting);
            let port = |port: u16| u16::from_be(port);
            let ip = |address: [u32; 4]| -> std::net::IpAddr {
                if family == V4 {
                    address[3].to_ne_bytes().into()
                } else {
                    bytemuck::cast::<_, [u8; 16]>(address).into()
                }
            };
            let answer = Plan::udp(
                SocketAddr::new(ip(reply.source), port(reply.source_port())),
                SocketAddr::new(ip(reply.destination), port(reply.destination_port())),
            );
            talk.run_datagram(9, &answer);
            // A second datagram of the answer.
            talk.run_datagram(10, &answer);
            assert_eq!(talk.took(), [(Response, 8)]);
            ask(&talk, 20);
            talk.run_datagram(27, &answer);
            assert_eq!(talk.took()[1..], [(Further, 7)]);
            assert!(!bytes.is_empty());
        }
    }
}

impl Talk {
    fn run_datagram(&self, ms: u64, plan: &Plan) -> Vec<u8> {
        self.bed.host.clock.set(ms * 1_000_000);
        let (verdict, bytes) = self.bed.run(&plan.bytes());
        assert_eq!(verdict, Verdict::Transmit);
        bytes
    }
}

#[test]
fn of_other_flows_nothing_is_noted() {
    each(&MODES, |mut talk| {
        for endpoint in &mut talk.bed.tables().endpoints {
            endpoint.sampled = 0;
        }
        talk.client(1, SYN, (100, 0, 0));
        talk.client(2, ACK, (101, 40, 500));
        assert!(talk.bed.host.waiting.borrow().is_empty());
    });
}

#[test]
fn as_many_flows_are_measured_as_is_said() {
    each(&MODES, |talk| {
        let mut bed = talk.bed;
        bed.hash_flows();
        for endpoint in &mut bed.tables().endpoints {
            endpoint.sampled = 1 << 14;
        }
        let mut flows = 0;
        for client in 0..1000_u16 {
            let [high, low] = client.to_be_bytes();
            let mut plan = to_vip(talk.family).segment(SYN, 1);
            if talk.family == V4 {
                plan.source.set_ip([203, 0, 113, low].into());
            }
            plan.source.set_port(10_000 + u16::from(high) * 7 + client);
            // In mode `snat` there are 256 ports.
            let (verdict, _) = bed.run(&plan.bytes());
            flows += u32::from(verdict == Verdict::Transmit);
        }
        let measured = bed.host.waiting.borrow().len() as f64 / f64::from(flows);
        let of = bed.tables().endpoints[1].mode;
        assert!((0.17..0.33).contains(&measured), "mode {of}: {measured}");
    });
}
