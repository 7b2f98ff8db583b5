//! IP addresses in text that people wrote, or programs for people.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The text with every address replaced that something is said instead of.
pub(crate) fn replaced(text: &str, mut instead: impl FnMut(IpAddr) -> Option<String>) -> String {
    let belongs = |c: char| c.is_ascii_hexdigit() || matches!(c, '.' | ':');
    let mut shown = String::with_capacity(text.len());
    let mut rest = text;
    while !rest.is_empty() {
        let other = rest.find(belongs).unwrap_or(rest.len());
        let (before, from) = rest.split_at(other);
        shown.push_str(before);
        let end = from.find(|c| !belongs(c)).unwrap_or(from.len());
        let (word, after) = from.split_at(end);
        // A full stop or colon at the end is the sentence's, and a port may follow an IPv4 address.
        let bare = word.trim_end_matches(['.', ':']);
        let host = word.split(':').next().unwrap_or(word);
        let address = [word, bare, host].into_iter().find_map(|part| {
            let address: IpAddr = part.parse().ok()?;
            Some((part, address))
        });
        match address.and_then(|(part, address)| Some((part, instead(address)?))) {
            Some((part, other)) => {
                shown.push_str(&other);
                shown.push_str(&word[part.len()..]);
            }
            None => shown.push_str(word),
        }
        rest = after;
    }
    shown
}

/// The addresses that a text names.
pub(crate) fn named(text: &str) -> Vec<IpAddr> {
    let mut found = Vec::new();
    replaced(text, |address| {
        found.push(address);
        None
    });
    found
}

/// The network of an address that tells where somebody is and not who: of IPv4 24 bits, of IPv6 48.
pub(crate) fn network(address: IpAddr) -> String {
    match address {
        IpAddr::V4(address) => {
            let [a, b, c, _] = address.octets();
            format!("{}/24", Ipv4Addr::new(a, b, c, 0))
        }
        IpAddr::V6(address) => {
            let [a, b, c, ..] = address.segments();
            format!("{}/48", Ipv6Addr::new(a, b, c, 0, 0, 0, 0, 0))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_found_among_words() {
        let text = "10.0.0.1: from 203.0.113.7:4711 to 2001:db8:1:2::9. At 20:03:50, 1.5 of 2::";
        let found: Vec<String> = named(text).iter().map(ToString::to_string).collect();
        assert_eq!(found, ["10.0.0.1", "203.0.113.7", "2001:db8:1:2::9", "2::"]);
        assert_eq!(
            replaced(text, |address| (!address.to_string().starts_with("10."))
                .then(|| network(address))),
            "10.0.0.1: from 203.0.113.0/24:4711 to 2001:db8:1::/48. At 20:03:50, 1.5 of 2::/48"
        );
    }
}
