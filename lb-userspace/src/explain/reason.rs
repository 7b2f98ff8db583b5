//! What the reasons mean, and what to do about them.

use lb_common::verdict::Reason;

/// A reason in a sentence, for people who have not read the source.
#[must_use]
pub const fn words(reason: Reason) -> &'static str {
    match reason {
        Reason::NoTables => "nothing has been published yet: the host's stack gets it",
        Reason::Truncated => "the frame ends before its own headers say that it does",
        Reason::NotIp => "it is neither IPv4 nor IPv6: the host's stack gets it",
        Reason::Malformed => "its headers contradict their standard",
        Reason::Extensions => "it has more options or extension headers than are followed",
        Reason::Fragment => "it is a fragment of a packet for the host itself",
        Reason::NotTcpUdp => {
            "it is neither TCP nor UDP, and no error about a flow of a service: the host's stack \
             gets it"
        }
        Reason::NoService => "no service asks for it: the host's stack gets it, untouched",
        Reason::NoBackendDropped => {
            "no backend of the service can be used, and on_empty = \"drop\": it is dropped \
             ('evenkeel service' tells what is wrong with each)"
        }
        Reason::NoBackendPassed => {
            "no backend of the service can be used, and on_empty = \"pass\": the host's stack gets \
             it"
        }
        Reason::Unresolved => {
            "the way to the backend is not known: the host's stack gets it ('evenkeel doctor' looks \
             at routes and neighbours)"
        }
        Reason::BadTables => {
            "the kernel's tables contradict themselves: 'evenkeel status' compares them with the \
             intended ones"
        }
        Reason::TtlExpired => "its time to live ends here: the host's stack answers",
        Reason::Denied => "the service does not serve its source: it is dropped",
        Reason::Limited => {
            "its source has opened as many connections as new_connections_per_source lets it: this \
             one is dropped"
        }
        Reason::TooBig => {
            "it is too big for the way to its backend: its sender is told how much fits (raise the \
             MTU behind the load balancer, or announce smaller segments)"
        }
        Reason::TooBigUntold => {
            "it is too big for the way to its backend, and so many senders have just been told that \
             this one is not"
        }
        Reason::FragmentUnknown => {
            "it is a fragment that is not followed: its first one was not seen, or its service wants \
             none"
        }
        Reason::EchoAnswered => "echo requests to a VIP are answered here, in the VIP's name",
        Reason::IcmpUnrelated => "it is an ICMP message to a VIP about no flow of a service",
        Reason::NoPort => {
            "no port of the pool that [snat] has is free for this backend: give it more addresses"
        }
        Reason::NoEntry => {
            "mode snat has no entry of this connection: it was never opened through here, or was \
             silent for too long; a new connection would be"
        }
        Reason::NoRoute => {
            "the kernel has no way to the client, or has to resolve it first: its stack gets the \
             packet as the client is to see it"
        }
        Reason::NoRoom => "the driver leaves no room in front of the frame for an outer header",
        Reason::Related => "it is an ICMP error, handed on to the end that it concerns",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_words_of_its_own() {
        let all: std::collections::BTreeSet<_> = Reason::ALL.into_iter().map(words).collect();
        assert_eq!(all.len(), Reason::ALL.len());
    }
}
