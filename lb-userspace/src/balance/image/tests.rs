mod modes;

use std::num::NonZeroU16;

use super::*;
use crate::model::{Backend, Mode, OnEmpty, Options, Protocol, RingSize, RingSlots, Weight};

fn service(port: u16, backends: &[u8]) -> Service {
    Service {
        name: format!("service-{port}").into(),
        key: ServiceKey {
            vip: [198, 51, 100, 10].into(),
            port: NonZeroU16::new(port).map_or(ServicePort::Any, ServicePort::Exact),
            protocol: Protocol::Tcp,
        },
        mode: Mode::Dsr,
        ring_slots: RingSize::Fixed(RingSlots::new(256).unwrap()),
        on_empty: OnEmpty::Drop,
        options: Options::default(),
        health: None,
        backends: backends
            .iter()
            .map(|&last| Backend {
                name: format!("backend-{last}").into(),
                address: [10, 0, 0, last].into(),
                weight: Weight::DEFAULT,
                capacity: None,
                port: None,
                server_id: None,
            })
            .collect(),
    }
}

/// A plan in which one endpoint owns every slot.
fn plan(service: &Service, owner: u16) -> ServicePlan<'_> {
    let way = Way {
        interface: 3,
        source: [2; 6],
        destination: [4; 6],
        mtu: 1500,
        address: Some([10, 0, 0, 254].into()),
    };
    ServicePlan {
        service,
        slots: Some(vec![Slot::steady(owner); 256].into()),
        changed: 0,
        serves: vec![true; service.backends.len()],
        ways: vec![Some(way); service.backends.len()],
    }
}

fn assigned(services: &[Service]) -> Numbers {
    let mut numbers = Numbers::default();
    numbers.assign(services).unwrap();
    numbers
}

#[test]
fn numbers_stay_with_what_they_name() {
    let mut numbers = assigned(&[service(80, &[1, 2]), service(81, &[1])]);
    let web = service(80, &[1]).key;
    let second = numbers.endpoint(&web, [10, 0, 0, 2].into()).unwrap();
    // In another order, with a neighbour gone and another come.
    let fresh = numbers
        .assign(&[service(82, &[9]), service(80, &[3, 2])])
        .unwrap();
    assert_eq!(numbers.service(&web), Some(0));
    assert_eq!(numbers.endpoint(&web, [10, 0, 0, 2].into()), Some(second));
    assert_eq!(numbers.endpoint(&web, [10, 0, 0, 1].into()), None);
    assert_eq!((fresh.services.len(), fresh.endpoints.len()), (1, 2));
}

#[test]
fn a_number_is_not_used_again_in_the_change_that_frees_it() {
    let mut numbers = assigned(&[service(80, &[1, 2])]);
    let fresh = numbers.assign(&[service(81, &[3, 4])]).unwrap();
    assert_eq!((fresh.services, fresh.endpoints), (vec![1], vec![2, 3]));
    assert!(numbers.release(|_| false));
    let fresh = numbers
        .assign(&[service(81, &[3, 4]), service(82, &[5])])
        .unwrap();
    assert_eq!((fresh.services, fresh.endpoints), (vec![2], vec![4]));
    let fresh = numbers
        .assign(&[service(81, &[3, 4]), service(82, &[5]), service(83, &[6])])
        .unwrap();
    assert_eq!((fresh.services, fresh.endpoints), (vec![0], vec![0]));
}

#[test]
fn what_leaves_keeps_its_number_while_it_is_named() {
    let mut numbers = assigned(&[service(80, &[1, 2]), service(81, &[3])]);
    numbers.assign(&[service(80, &[1])]).unwrap();
    assert_eq!(numbers.leaving().collect::<Vec<_>>(), [1, 2]);
    assert_eq!(numbers.leaving_from(0).collect::<Vec<_>>(), [1]);
    assert_eq!(numbers.leaving_services().collect::<Vec<_>>(), [1]);
    assert!(!numbers.release(|_| true));
    // A service leaves with its last endpoint.
    assert!(numbers.release(|number| number == 2));
    assert_eq!(numbers.leaving().collect::<Vec<_>>(), [2]);
    assert_eq!(numbers.leaving_services().collect::<Vec<_>>(), [1]);
    // What comes back has the number that it had.
    let fresh = numbers
        .assign(&[service(80, &[1]), service(81, &[3])])
        .unwrap();
    assert_eq!(fresh, Fresh::default());
    assert_eq!(
        numbers.endpoint(&service(81, &[]).key, [10, 0, 0, 3].into()),
        Some(2)
    );
}

#[test]
fn what_leaves_keeps_its_records() {
    let before = service(80, &[1, 2]);
    let mut numbers = assigned(std::slice::from_ref(&before));
    let first = Image::build(&[plan(&before, 1)], &numbers, Common::seeded(7), None);
    let after = service(80, &[1]);
    numbers.assign(std::slice::from_ref(&after)).unwrap();
    let second = Image::build(
        &[plan(&after, 0)],
        &numbers,
        Common::seeded(7),
        Some(&first),
    );
    assert_eq!(second.tables.endpoints[1], first.tables.endpoints[1]);
    assert_eq!(second.tables.fars[1], first.tables.fars[1]);
    let mut adopted = Numbers::adopt(&second.tables);
    adopted.assign(std::slice::from_ref(&after)).unwrap();
    assert_eq!(adopted.leaving().collect::<Vec<_>>(), [1]);
    numbers.release(|_| false);
    let third = Image::build(
        &[plan(&after, 0)],
        &numbers,
        Common::seeded(7),
        Some(&second),
    );
    assert_eq!(third.tables.endpoints[1], bytemuck::Zeroable::zeroed());
}

#[test]
fn too_much_is_refused_and_changes_nothing() {
    let mut numbers = assigned(&[service(80, &[1])]);
    let many: Vec<_> = (1..=SERVICES as u16 + 1)
        .map(|port| service(port, &[]))
        .collect();
    assert_eq!(numbers.assign(&many), Err(Full::Services));
    assert_eq!(numbers.service(&service(80, &[]).key), Some(0));
}

#[test]
fn numbers_are_read_back_from_the_tables() {
    let services = [service(80, &[1, 2]), service(0, &[1])];
    let numbers = assigned(&services);
    let mut plans: Vec<_> = services.iter().map(|service| plan(service, 0)).collect();
    // A backend whose next hop is not known has its number all the same.
    plans[0].ways[1] = None;
    let image = Image::build(&plans, &numbers, Common::seeded(7), None);
    let mut adopted = Numbers::adopt(&image.tables);
    assert_eq!(adopted, numbers);
    assert_eq!(adopted.assign(&services), Ok(Fresh::default()));
}

#[test]
fn only_a_ring_that_changes_moves_to_its_other_number() {
    let services = [service(80, &[1, 2]), service(81, &[1, 2])];
    let numbers = assigned(&services);
    let build = |owners: [u16; 2], live: Option<&Image>| {
        let plans: Vec<_> = services
            .iter()
            .zip(owners)
            .map(|(s, o)| plan(s, o))
            .collect();
        Image::build(&plans, &numbers, Common::seeded(7), live)
    };
    let names = |image: &Image| image.rings.keys().copied().collect::<Vec<_>>();
    let first = build([0, 0], None);
    assert_eq!(names(&first), [0, 2]);
    let second = build([1, 0], Some(&first));
    assert_eq!(names(&second), [1, 2]);
    assert!(Arc::ptr_eq(&first.rings[&2], &second.rings[&2]));
    let third = build([0, 0], Some(&second));
    assert_eq!(names(&third), [0, 2]);
    assert_eq!(*third.ring_of(0).unwrap(), first.rings[&0]);
    assert_eq!(third.tables.header.generation, 3);
}

#[test]
fn images_forward_alike_whatever_their_generation() {
    let services = [service(80, &[1, 2])];
    let numbers = assigned(&services);
    let first = Image::build(&[plan(&services[0], 0)], &numbers, Common::seeded(7), None);
    let again = Image::build(
        &[plan(&services[0], 0)],
        &numbers,
        Common::seeded(7),
        Some(&first),
    );
    assert_ne!(first, again);
    assert!(again.forwards_like(&first));
    let mut unresolved = plan(&services[0], 0);
    unresolved.ways[0] = None;
    for other in [
        Image::build(
            &[plan(&services[0], 1)],
            &numbers,
            Common::seeded(7),
            Some(&first),
        ),
        Image::build(&[unresolved], &numbers, Common::seeded(7), Some(&first)),
        Image::build(
            &[plan(&services[0], 0)],
            &numbers,
            Common::seeded(8),
            Some(&first),
        ),
        Image::build(&[], &numbers, Common::seeded(7), Some(&first)),
    ] {
        assert!(!other.forwards_like(&first));
    }
}

#[test]
fn a_service_without_owners_has_no_ring() {
    let services = [service(80, &[1])];
    let numbers = assigned(&services);
    let empty = ServicePlan {
        slots: None,
        ..plan(&services[0], 0)
    };
    let image = Image::build(&[empty], &numbers, Common::seeded(7), None);
    assert!(image.rings.is_empty() && image.ring_of(0).is_none());
    assert_eq!(vips(&image.tables).next().unwrap().state, state::EMPTY_DROP);
}
