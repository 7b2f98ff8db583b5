//! Who opens connections: samples from the data plane, and of how many connections one is noted.

use std::{collections::BTreeMap, net::IpAddr};

use lb_common::{flow::Address, layout::SampledFlow};
use log::warn;

use super::state::State;
use crate::{causes::with_causes, stats::clients::Sample};

/// How many samples a second are wanted of all services together.
const WANTED: f64 = 2048.0;
/// How many of one service at most: a minute of them tells a client of a hundredth from chance.
const OF_ONE: f64 = 512.0;
/// And at least, where that many connections come.
const AT_LEAST: f64 = 16.0;

impl State {
    /// Reads the samples since the last time, and says how many to take until the next.
    pub(super) fn sample(&mut self) {
        let samples = self.kernel.samples().read();
        let now = self.elapsed(self.now.instant);
        let mut by_service = self.sort_samples(&samples);
        for (n, state) in self.services.iter_mut().enumerate() {
            let samples = by_service.remove(&n).unwrap_or_default();
            state.load.clients.push(now, samples);
        }
        let rates = self.sample_rates();
        if let Err(e) = self.kernel.samples().note(&rates) {
            warn!("clients are not sampled: {}", with_causes(&e));
        }
    }

    /// The samples by the index of their service; those of backends that are gone are left out.
    fn sort_samples(&self, samples: &[SampledFlow]) -> BTreeMap<usize, Vec<Sample>> {
        let mut sorted: BTreeMap<usize, Vec<Sample>> = BTreeMap::new();
        if samples.is_empty() {
            return sorted;
        }
        let mut known = BTreeMap::new();
        for (of, service) in self.config.services.iter().enumerate() {
            for (n, backend) in service.backends.iter().enumerate() {
                if let Some(number) = self.numbers.endpoint(&service.key, backend.address) {
                    known.insert(number, (of, n, service.key.vip.is_ipv6()));
                }
            }
        }
        for sample in samples {
            if let Some(&(of, backend, ipv6)) = known.get(&sample.endpoint) {
                sorted.entry(of).or_default().push(Sample {
                    client: client(&sample.source, ipv6),
                    backend,
                    one_of: sample.one_of,
                    slot: sample.slot,
                });
            }
        }
        sorted
    }

    /// Of how many connections to each endpoint one is noted, by the rates of the last second.
    fn sample_rates(&self) -> BTreeMap<u16, u32> {
        let rates: Vec<f64> = self.services.iter().map(|of| of.load.flow_rate()).collect();
        let busy = rates.iter().filter(|&&rate| rate > 0.0).count().max(1);
        let wanted = (WANTED / busy as f64).clamp(AT_LEAST, OF_ONE);
        let mut by_endpoint = BTreeMap::new();
        for (service, rate) in self.config.services.iter().zip(rates) {
            let one_of = ((rate / wanted).ceil().max(1.0) as u32).next_power_of_two();
            for backend in &service.backends {
                if let Some(number) = self.numbers.endpoint(&service.key, backend.address) {
                    by_endpoint.insert(number, one_of);
                }
            }
        }
        by_endpoint
    }
}

/// A client: of IPv6 the network of its link, within which addresses are for the taking.
fn client(source: &Address, ipv6: bool) -> IpAddr {
    let bytes: [u8; 16] = bytemuck::cast(*source);
    if ipv6 {
        let [a, b, ..] = *source;
        IpAddr::from(bytemuck::cast::<[u32; 4], [u8; 16]>([a, b, 0, 0]))
    } else {
        let [.., a, b, c, d] = bytes;
        IpAddr::from([a, b, c, d])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_of_ipv6_is_its_network() {
        let address: std::net::Ipv6Addr = "2001:db8:1:2:a:b:c:d".parse().unwrap();
        let source: Address = bytemuck::cast(address.octets());
        assert_eq!(
            client(&source, true),
            "2001:db8:1:2::".parse::<IpAddr>().unwrap()
        );
        let v4 = [0, 0, 0, u32::from_ne_bytes([192, 0, 2, 7])];
        assert_eq!(client(&v4, false), "192.0.2.7".parse::<IpAddr>().unwrap());
    }
}
