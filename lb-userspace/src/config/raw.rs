//! The file as it is written. A value of the wrong shape is kept with its complaint rather than
//! refused at once, so that one look finds everything.

use std::{borrow::Cow, collections::BTreeMap, fmt, marker::PhantomData, ops::Range};

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, value::MapAccessDeserializer},
};
use toml::Spanned;

/// A value that may be missing, with its place.
pub(super) struct Leaf<T>(Option<Spanned<Lenient<T>>>);

/// A value, or why it is not of its shape.
enum Lenient<T> {
    Good(T),
    Bad(String),
}

/// What a [`Leaf`] holds.
pub(super) enum Held<'a, T> {
    Missing,
    Good(&'a T, Range<usize>),
    Bad(&'a str, Range<usize>),
}

impl<T> Leaf<T> {
    /// The value, if it is there and of its shape.
    pub(super) fn good(&self) -> Option<&T> {
        match self.held() {
            Held::Good(value, _) => Some(value),
            Held::Missing | Held::Bad(..) => None,
        }
    }

    pub(super) fn held(&self) -> Held<'_, T> {
        match &self.0 {
            None => Held::Missing,
            Some(spanned) => match spanned.get_ref() {
                Lenient::Good(value) => Held::Good(value, spanned.span()),
                Lenient::Bad(complaint) => Held::Bad(complaint, spanned.span()),
            },
        }
    }
}

impl<T> Default for Leaf<T> {
    fn default() -> Self {
        Self(None)
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Leaf<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Spanned::deserialize(deserializer).map(|spanned| Self(Some(spanned)))
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Lenient<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(T::deserialize(deserializer).map_or_else(
            // What follows the first line says where, which is known better here.
            |error| Self::Bad(plain(error.to_string().lines().next().unwrap_or_default())),
            Self::Good,
        ))
    }
}

/// The same in words that the file's writer knows.
fn plain(complaint: &str) -> String {
    [
        ("expected i64", "expected a whole number"),
        ("expected f64", "expected a number"),
        ("a sequence", "a list"),
        ("invalid type: sequence", "invalid type: list"),
        ("invalid type: map", "invalid type: table"),
    ]
    .iter()
    .fold(complaint.to_owned(), |text, (theirs, ours)| {
        text.replace(theirs, ours)
    })
}

impl<T: JsonSchema> JsonSchema for Leaf<T> {
    fn schema_name() -> Cow<'static, str> {
        T::schema_name()
    }

    fn inline_schema() -> bool {
        T::inline_schema()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        T::json_schema(generator)
    }
}

/// A table, and nothing else: what serde derives takes an array's items for the fields in order.
pub(super) struct Table<T>(pub(super) T);

/// Tables one after another.
pub(super) type Tables<T> = Leaf<Vec<Leaf<Table<T>>>>;

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Table<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> serde::de::Visitor<'de> for Visitor<T> {
            type Value = Table<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a table")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map)).map(Table)
            }
        }
        deserializer.deserialize_map(Visitor(PhantomData))
    }
}

impl<T: JsonSchema> JsonSchema for Table<T> {
    fn schema_name() -> Cow<'static, str> {
        T::schema_name()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        T::json_schema(generator)
    }
}

/// A whole number or a word.
pub(super) enum NumberOr<W> {
    Number(i64),
    Word(String, PhantomData<W>),
}

/// The word that [`NumberOr`] takes, for the schema.
pub(super) trait Words {
    const NAME: &'static str;
    /// The keyword that restricts the word, and its value.
    const WORD: (&'static str, &'static str);
    const MINIMUM: u16;
    const MAXIMUM: u16;
}

impl<'de, W> Deserialize<'de> for NumberOr<W> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor<W>(PhantomData<W>);
        impl<W> serde::de::Visitor<'_> for Visitor<W> {
            type Value = NumberOr<W>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number or a string")
            }

            fn visit_i64<E>(self, number: i64) -> Result<Self::Value, E> {
                Ok(NumberOr::Number(number))
            }

            fn visit_str<E>(self, word: &str) -> Result<Self::Value, E> {
                Ok(NumberOr::Word(word.to_owned(), PhantomData))
            }
        }
        deserializer.deserialize_any(Visitor(PhantomData))
    }
}

impl<W: Words> JsonSchema for NumberOr<W> {
    fn schema_name() -> Cow<'static, str> {
        W::NAME.into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        schemars::json_schema!({
            "anyOf": [
                { "type": "integer", "minimum": W::MINIMUM, "maximum": W::MAXIMUM },
                { "type": "string", (W::WORD.0): W::WORD.1 },
            ]
        })
    }
}

/// A service's port.
pub(super) struct AnyPort;

impl Words for AnyPort {
    const NAME: &'static str = "Port";
    const WORD: (&'static str, &'static str) = ("const", "any");
    const MINIMUM: u16 = 1;
    const MAXIMUM: u16 = u16::MAX;
}

/// An HTTP status or a range of them.
pub(super) struct StatusRange;

impl Words for StatusRange {
    const NAME: &'static str = "Status";
    const WORD: (&'static str, &'static str) = ("pattern", "^[1-5][0-9]{2}(-[1-5][0-9]{2})?$");
    const MINIMUM: u16 = 100;
    const MAXIMUM: u16 = 599;
}

/// A text, or where it is.
pub(super) enum Text {
    Plain(String),
    Secret(Table<Secret>),
}

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> serde::de::Visitor<'de> for Visitor {
            type Value = Text;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string or a table")
            }

            fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
                Ok(Text::Plain(text.to_owned()))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
                let table = Secret::deserialize(MapAccessDeserializer::new(map))?;
                Ok(Text::Secret(Table(table)))
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

impl JsonSchema for Text {
    fn schema_name() -> Cow<'static, str> {
        "Text".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let secret = generator.subschema_for::<Secret>();
        schemars::json_schema!({ "anyOf": [{ "type": "string" }, secret] })
    }
}

/// Defines a table of the file, with the names of its keys.
macro_rules! table {
    ($(#[$doc:meta])* $name:ident { $($(#[$meta:meta])* $field:ident: $type:ty,)* }) => {
        #[derive(Default, Deserialize, JsonSchema)]
        $(#[$doc])*
        #[serde(default)]
        #[schemars(deny_unknown_fields)]
        pub(super) struct $name {
            $($(#[$meta])* pub(super) $field: $type,)*
        }

        impl $name {
            /// The keys that the table may have.
            pub(super) const KEYS: &'static [&'static str] =
                &[$(match stringify!($field).as_bytes() {
                    b"kind" => "type",
                    _ => stringify!($field),
                },)*];
        }
    };
}

table! {
    /// Configuration of Evenkeel.
    #[schemars(extend("required" = ["data_plane", "services"]))]
    Config {
        /// Where the XDP program is attached and pinned.
        data_plane: Leaf<Table<DataPlane>>,
        /// Where the controller answers its command line.
        admin: Leaf<Table<Admin>>,
        /// Where mode `snat` sends from.
        snat: Leaf<Table<Snat>>,
        /// How packets travel in modes `ipip` and `gue`.
        tunnel: Leaf<Table<Tunnel>>,
        /// The memory of flows.
        tracking: Leaf<Table<Tracking>>,
        /// What the controller keeps on disk.
        state: Leaf<Table<State>>,
        /// When the controller audits what it runs by.
        audit: Leaf<Table<Audit>>,
        /// When incidents end by themselves.
        incidents: Leaf<Table<Incidents>>,
        /// What the controller shows over HTTP, to Prometheus and to browsers.
        http: Leaf<Table<Http>>,
        /// Who is told of alerts.
        #[schemars(length(max = 32))]
        notify: Tables<Notify>,
        /// What is balanced.
        #[schemars(length(min = 1, max = 1024))]
        services: Tables<Service>,
    }
}

table! {
    /// Where the XDP program is attached and pinned.
    #[schemars(extend("required" = ["interfaces"]))]
    DataPlane {
        /// The interfaces that VIP traffic arrives at.
        #[schemars(length(min = 1))]
        interfaces: Leaf<Vec<String>>,
        /// `native`: in the driver, refused where the driver cannot. `generic`: anywhere, several
        /// times slower. Default: `native`.
        #[schemars(extend("enum" = ["native", "generic"], "default" = "native"))]
        xdp_mode: Leaf<String>,
        /// The folder in a BPF file system that holds what outlives the controller. Default:
        /// `/sys/fs/bpf/evenkeel`.
        #[schemars(extend("default" = "/sys/fs/bpf/evenkeel"))]
        pins: Leaf<String>,
        /// Seeds the flow hash; the same on all load balancers that share VIPs. Default: 0.
        #[schemars(range(min = 0), extend("default" = 0))]
        hash_seed: Leaf<i64>,
        /// How far a backend's share may be from its weight, relative to it, in rings whose size
        /// is not given. Default: 0.02.
        #[schemars(range(min = 0.001, max = 0.5), extend("default" = 0.02))]
        evenness: Leaf<f64>,
        /// The upper sixteen bits of the marks (`SO_MARK`) of probes on the way of traffic; the
        /// others are zero. Default: 0x454b0000.
        #[schemars(range(min = 65536, max = 4_294_901_760_i64), extend("default" = 0x454b_0000))]
        probe_mark: Leaf<i64>,
        /// What is done where the kernel's tables are not the intended ones, which is told in any
        /// case. `repair`: the intended ones are published. `report`: nothing. Default: `repair`.
        #[schemars(extend("enum" = ["repair", "report"], "default" = "repair"))]
        on_drift: Leaf<String>,
    }
}

table! {
    /// Where the controller answers its command line.
    Admin {
        /// The Unix socket. Default: `/run/evenkeel/evenkeel.sock`.
        #[schemars(extend("default" = "/run/evenkeel/evenkeel.sock"))]
        socket: Leaf<String>,
        /// A group whose members may ask, besides root.
        group: Leaf<String>,
        /// A group whose members may ask and change. Default: nobody but root.
        change_group: Leaf<String>,
    }
}

table! {
    /// Where mode `snat` sends from.
    #[schemars(extend("required" = ["addresses"]))]
    Snat {
        /// Addresses that nothing but the load balancer uses.
        #[schemars(length(min = 1, max = 64))]
        addresses: Leaf<Vec<String>>,
        /// The first port. Default: 1024.
        #[schemars(range(min = 1, max = 65280), extend("default" = 1024))]
        first_port: Leaf<i64>,
        /// How many ports from that one on, a power of two. Default: 32768.
        #[schemars(range(min = 256, max = 32768), extend("default" = 32768))]
        ports: Leaf<i64>,
    }
}

table! {
    /// How packets travel in modes `ipip` and `gue`.
    Tunnel {
        /// Where outer IPv4 packets come from: a prefix, of which the flow fills in the rest.
        /// Default: the host's own address.
        source_ipv4: Leaf<String>,
        /// The same of IPv6; of at least 96 bits.
        source_ipv6: Leaf<String>,
        /// The UDP port that `gue` sends to. Default: 6080.
        #[schemars(range(min = 1, max = 65535), extend("default" = 6080))]
        gue_port: Leaf<i64>,
    }
}

table! {
    /// The memory of flows.
    Tracking {
        /// How long a change of the ring remembers flows of the backend before. Default: `10m`.
        #[schemars(extend("default" = "10m"))]
        window: Leaf<String>,
        /// How long a TCP flow may be silent before it is forgotten. Default: `1h`.
        #[schemars(extend("default" = "1h"))]
        idle_tcp: Leaf<String>,
        /// The same of UDP. Default: `2m`.
        #[schemars(extend("default" = "2m"))]
        idle_udp: Leaf<String>,
        /// How long a flow is remembered after its end. Default: `75s`.
        #[schemars(extend("default" = "75s"))]
        closing: Leaf<String>,
        /// Room for flows of which only a first packet was seen. Default: 65536.
        #[schemars(range(min = 1024, max = 16_777_216), extend("default" = 65536))]
        fresh: Leaf<i64>,
        /// Room for the other flows. Default: 262144.
        #[schemars(range(min = 1024, max = 16_777_216), extend("default" = 262_144))]
        established: Leaf<i64>,
    }
}

table! {
    /// What the controller keeps on disk.
    State {
        /// The folder. Default: `/var/lib/evenkeel`.
        #[schemars(extend("default" = "/var/lib/evenkeel"))]
        directory: Leaf<String>,
        /// How long the journal keeps events. Default: `90d`.
        #[schemars(extend("default" = "90d"))]
        keep_events: Leaf<String>,
        /// How large the journal may become, in MiB; the oldest events go first. Default: 256.
        #[schemars(range(min = 1, max = 1_048_576), extend("default" = 256))]
        max_journal_mib: Leaf<i64>,
        /// How large history may become, in MiB; the oldest goes first. Default: 256.
        #[schemars(range(min = 1, max = 1_048_576), extend("default" = 256))]
        max_history_mib: Leaf<i64>,
    }
}

table! {
    /// When the controller audits what it runs by.
    Audit {
        /// From one audit to the next. Default: `1h`.
        #[schemars(extend("default" = "1h"))]
        every: Leaf<String>,
    }
}

table! {
    /// When incidents begin and end by themselves.
    Incidents {
        /// The least severity of an alert that opens one: `page` or `ticket`. Default: `page`.
        #[schemars(extend("default" = "page", "enum" = ["page", "ticket"]))]
        opened_by: Leaf<String>,
        /// How long none of an incident's alerts must have been on, `1s` to `24h`. Default: `10m`.
        #[schemars(extend("default" = "10m"))]
        close_after: Leaf<String>,
    }
}

table! {
    /// What the controller shows over HTTP, to Prometheus and to browsers.
    Http {
        /// Addresses with ports; an empty list for none. Default: `["127.0.0.1:9660"]`.
        #[schemars(length(max = 8), extend("default" = ["127.0.0.1:9660"]))]
        listen: Leaf<Vec<String>>,
        /// A PEM file with the server's certificate and those that it is signed by. Default: no TLS.
        certificate: Leaf<String>,
        /// A PEM file with the certificate's key.
        key: Leaf<String>,
        /// What a request must bring along. Default: nothing.
        token: Leaf<Table<Secret>>,
    }
}

table! {
    /// Somebody who is told of alerts.
    #[schemars(extend("required" = ["name", "type"]))]
    Notify {
        /// What people call it.
        name: Leaf<String>,
        /// How it is told.
        #[serde(rename = "type")]
        #[schemars(extend("enum" = ["alertmanager", "webhook", "slack", "command", "syslog", "file"]))]
        kind: Leaf<String>,
        /// `alertmanager`, `webhook`, `slack`: where to; of Alertmanager, without `/api/v2/alerts`.
        url: Leaf<Text>,
        /// `alertmanager`, `webhook`, `slack`: further header fields.
        headers: Leaf<BTreeMap<String, Leaf<Text>>>,
        /// `alertmanager`, `webhook`, `slack`: a PEM file of certificates to trust. Default: those of
        /// the system.
        ca: Leaf<String>,
        /// `webhook`: the key that signs what is sent.
        secret: Leaf<Table<Secret>>,
        /// `command`: the program with its arguments; there is no shell.
        #[schemars(length(min = 1))]
        command: Leaf<Vec<String>>,
        /// `file`: the file. `syslog`: the socket, by default `/dev/log`.
        path: Leaf<String>,
        /// Which alerts, by name. Default: all.
        #[schemars(length(min = 1))]
        alerts: Leaf<Vec<String>>,
        /// The least severity. Default: `info`.
        #[schemars(extend("enum" = ["info", "ticket", "page"], "default" = "info"))]
        severity: Leaf<String>,
        /// Of which services. Default: all, and what concerns none.
        #[schemars(length(min = 1))]
        services: Leaf<Vec<String>>,
        /// Whether it is told that an alert is over. Default: true.
        #[schemars(extend("default" = true))]
        resolve: Leaf<bool>,
        /// How often it is told again of an alert that is still on. Default: `4h`; `1m` of
        /// `alertmanager`.
        repeat: Leaf<String>,
        /// How often it is sent the alert `Watchdog`, which is always on. Default: never.
        heartbeat: Leaf<String>,
        /// The most notifications in a minute. Default: 60.
        #[schemars(range(min = 1, max = 6000), extend("default" = 60))]
        per_minute: Leaf<i64>,
        /// How long one delivery may take. Default: `5s`.
        #[schemars(extend("default" = "5s"))]
        timeout: Leaf<String>,
        /// The URL of the folder of runbooks that it is told. Default: where the package puts them.
        #[schemars(extend("default" = "file:///usr/share/doc/evenkeel/runbooks/"))]
        runbooks: Leaf<String>,
    }
}

table! {
    /// Where a secret is.
    Secret {
        /// In this file, without the line break at its end.
        file: Leaf<String>,
        /// In this environment variable of the controller.
        env: Leaf<String>,
    }
}

table! {
    /// One VIP, port and protocol with the backends that serve it.
    #[schemars(extend("required" = ["name", "vip", "port", "backends"]))]
    Service {
        /// What people call it.
        name: Leaf<String>,
        /// The virtual address.
        vip: Leaf<String>,
        /// 1 to 65535, or `any` for every port that no other service of the VIP names.
        port: Leaf<NumberOr<AnyPort>>,
        /// `tcp` or `udp`. Default: `tcp`.
        #[schemars(extend("enum" = ["tcp", "udp"], "default" = "tcp"))]
        protocol: Leaf<String>,
        /// How packets reach a backend. Default: `dsr`.
        #[schemars(extend("enum" = ["dsr", "ipip", "gue", "nat", "snat"], "default" = "dsr"))]
        mode: Leaf<String>,
        /// Slots of the Maglev ring, a power of two. Default: as many as evenness needs.
        #[schemars(range(min = 256, max = 65536))]
        ring_slots: Leaf<i64>,
        /// What happens to packets while no backend is usable: `drop` or `pass`. Default: `drop`.
        #[schemars(extend("enum" = ["drop", "pass"], "default" = "drop"))]
        on_empty: Leaf<String>,
        /// What becomes of a backend's flows when its checks fail: `rehash` gives them to others
        /// at once, `keep` lets them stay. Default: `rehash`.
        #[schemars(extend("enum" = ["rehash", "keep"], "default" = "rehash"))]
        on_down: Leaf<String>,
        /// What of a flow picks its backend: the whole `flow`, its `source` address alone, or its
        /// destination `port` alone. Default: `flow`.
        #[schemars(extend("enum" = ["flow", "source", "port"], "default" = "flow"))]
        spread: Leaf<String>,
        /// `udp`: whether a flow stays with its backend when the ring changes: `hash` or `sticky`.
        /// Default: `hash`; in mode `snat` it always stays.
        #[schemars(extend("enum" = ["hash", "sticky"]))]
        udp: Leaf<String>,
        /// Prefixes that may use the service; all others are denied.
        #[schemars(length(min = 1))]
        allow: Leaf<Vec<String>>,
        /// Prefixes that may not use the service. The longest prefix that covers a source decides.
        #[schemars(length(min = 1))]
        deny: Leaf<Vec<String>>,
        /// `tcp`: how many connections a source may open. Default: no limit.
        new_connections_per_source: Leaf<Table<ConnectionLimit>>,
        /// What becomes of fragments: `follow` sends later ones where the first went, `drop`,
        /// `pass`. Default: `follow`.
        #[schemars(extend("enum" = ["follow", "drop", "pass"], "default" = "follow"))]
        fragments: Leaf<String>,
        /// `follow`: what becomes of later fragments that come before the first: `drop` or `pass`.
        /// Default: `drop`.
        #[schemars(extend("enum" = ["drop", "pass"], "default" = "drop"))]
        reordered_fragments: Leaf<String>,
        /// `udp`: QUIC connection IDs name the backend.
        quic: Leaf<Table<Quic>>,
        /// How the backends are probed. Without it all count as healthy.
        health: Leaf<Table<Health>>,
        /// How long a backend that is new or comes back takes to reach its whole weight. Default:
        /// no time.
        slow_start: Leaf<String>,
        /// Where a smaller part of the backends is up, all that are not drained are used; 0 never
        /// does. Default: 0.5.
        #[schemars(range(min = 0.0, max = 1.0), extend("default" = 0.5))]
        panic_below: Leaf<f64>,
        /// What is done about backends that answer and underperform.
        ejection: Leaf<Table<Ejection>>,
        /// How the backends' agents are asked what part of their weight they want. Default: nobody
        /// asks.
        agent: Leaf<Table<Agent>>,
        /// What arrives at the busiest moment, in the unit of the backends' `capacity`: the audit
        /// says where all but one of them cannot take it.
        #[schemars(range(min = 1, max = 4_294_967_295_i64))]
        peak_load: Leaf<i64>,
        /// How long the application leaves a connection silent, `1s` to `24h`: the audit says where
        /// a flow is forgotten earlier.
        keepalive: Leaf<String>,
        /// Of how many flows one has its latency measured in passing, 1 to 65536; 0 measures none.
        /// Default: 64.
        #[schemars(range(min = 0, max = 65536), extend("default" = 64))]
        measure_one_in: Leaf<i64>,
        /// The servers.
        #[schemars(length(min = 1))]
        backends: Tables<Backend>,
    }
}

table! {
    /// How many connections each source may open.
    #[schemars(extend("required" = ["per_second"]))]
    ConnectionLimit {
        /// In the long run, each second.
        #[schemars(range(min = 1, max = 1_000_000))]
        per_second: Leaf<i64>,
        /// At once, after a pause. Default: `per_second`.
        #[schemars(range(min = 1, max = 1_000_000))]
        burst: Leaf<i64>,
    }
}

table! {
    /// Server IDs in QUIC connection IDs, in plain text.
    #[schemars(extend("required" = ["server_id_length"]))]
    Quic {
        /// Their length in bytes.
        #[schemars(range(min = 1, max = 15))]
        server_id_length: Leaf<i64>,
    }
}

table! {
    /// How the backends are probed.
    #[schemars(extend("required" = ["type"]))]
    Health {
        /// What a probe does: opens a connection (`tcp`), sends a request (`http`, `https`), makes a
        /// handshake (`tls`), asks for `grpc.health.v1` (`grpc`, `grpcs`), sends a datagram (`udp`)
        /// or an echo request (`icmp`), or runs a program (`command`).
        #[serde(rename = "type")]
        #[schemars(extend("enum" = [
            "tcp", "http", "https", "tls", "grpc", "grpcs", "udp", "icmp", "command"
        ]))]
        kind: Leaf<String>,
        /// The port that is probed. Default: the service's.
        #[schemars(range(min = 1, max = 65535))]
        port: Leaf<i64>,
        /// Which way a probe takes: `vip` is that of the service's packets, `direct` goes to the
        /// backend's own address. Default: `vip` in modes `dsr`, `ipip` and `gue`, else `direct`.
        #[schemars(extend("enum" = ["vip", "direct"]))]
        via: Leaf<String>,
        /// `vip`: how large clients' packets are at most, in bytes; a probe opens with one as
        /// large. 0 asks for none. Default: 1500.
        #[schemars(range(min = 0, max = 9216), extend("default" = 1500))]
        client_mtu: Leaf<i64>,
        /// The address of this host that probes come from. Default: the kernel's choice.
        source: Leaf<String>,
        /// From the start of a probe to the start of the next. Default: `1s`.
        #[schemars(extend("default" = "1s"))]
        interval: Leaf<String>,
        /// The same while a state is on its way: too few passes or failures in a row to change it.
        /// At most the interval. Default: the interval.
        fast_interval: Leaf<String>,
        /// How long a probe may take; less than the intervals. Default: `500ms`, or half the
        /// shorter one where that is less.
        timeout: Leaf<String>,
        /// Passes in a row that bring a backend up. Default: 2.
        #[schemars(range(min = 1, max = 1000), extend("default" = 2))]
        rise: Leaf<i64>,
        /// Failures in a row that take a backend down. Default: 3.
        #[schemars(range(min = 1, max = 1000), extend("default" = 3))]
        fall: Leaf<i64>,
        /// `http`, `https`: the method. Default: `GET`.
        #[schemars(extend("default" = "GET"))]
        method: Leaf<String>,
        /// `http`, `https`: further headers, as in `[ "X-Probe: evenkeel" ]`.
        headers: Leaf<Vec<String>>,
        /// `http`, `https`: what is asked for. Default: `/`.
        #[schemars(extend("default" = "/"))]
        path: Leaf<String>,
        /// `http`, `https`, `grpc`, `grpcs`: the `Host` header. Default: the backend's address.
        host: Leaf<String>,
        /// `http`, `https`: healthy status codes, as in `[ "200-299", 304 ]`. Default: `[ "200-399" ]`.
        #[schemars(extend("default" = ["200-399"]))]
        status: Leaf<Vec<NumberOr<StatusRange>>>,
        /// `http`, `https`: text that the first 64 KiB of the body must contain.
        body: Leaf<String>,
        /// `http`, `https`: a regular expression that these must match.
        body_regex: Leaf<String>,
        /// With TLS: the name that is asked for and that the certificate is to be for. Default: the
        /// backend's address.
        server_name: Leaf<String>,
        /// With TLS: a PEM file of certificates to trust. Default: those of the system.
        ca: Leaf<String>,
        /// With TLS: whether the certificate must be valid. Default: true.
        #[schemars(extend("default" = true))]
        verify: Leaf<bool>,
        /// With TLS: how long before the certificate expires that is told; `0s` never does.
        /// Default: `14d`.
        #[schemars(extend("default" = "14d"))]
        warn_before_expiry: Leaf<String>,
        /// `grpc`, `grpcs`: the service that is asked about. Default: the server as a whole.
        service: Leaf<String>,
        /// `udp`: the text that is sent.
        send: Leaf<String>,
        /// `udp`: the same in hexadecimal digits.
        send_hex: Leaf<String>,
        /// `udp`: text that the answer must contain. Default: any answer will do.
        expect: Leaf<String>,
        /// `udp`: the same in hexadecimal digits.
        expect_hex: Leaf<String>,
        /// `command`: a program, by its absolute path, with its arguments.
        #[schemars(length(min = 1))]
        command: Leaf<Vec<String>>,
    }
}

table! {
    /// When a backend underperforms, and what is done about it.
    Ejection {
        /// `demote` lowers its weight until it is well, `alert` tells of it, `off` does not look.
        /// Default: `demote`.
        #[schemars(extend("enum" = ["demote", "alert", "off"], "default" = "demote"))]
        underperformers: Leaf<String>,
        /// Whether what is measured of traffic counts beside probes. Default: true where flows are
        /// spread by flow and measured.
        traffic: Leaf<bool>,
        /// How many times as slow as its peers a backend is that must be found. Default: 2.0.
        #[schemars(range(min = 1.5, max = 10.0), extend("default" = 2.0))]
        slow: Leaf<f64>,
        /// The part of failures that must be found. Default: 0.01.
        #[schemars(range(min = 0.001, max = 0.5), extend("default" = 0.01))]
        errors: Leaf<f64>,
        /// Latencies below this count as this. Default: `2ms`.
        #[schemars(extend("default" = "2ms"))]
        latency_floor: Leaf<String>,
        /// The most of the service's weight that may be missing for a backend to be demoted.
        /// Default: 0.34.
        #[schemars(range(min = 0.01, max = 0.5), extend("default" = 0.34))]
        budget: Leaf<f64>,
        /// How long a demotion lasts at least. Default: `1m`.
        #[schemars(extend("default" = "1m"))]
        hold: Leaf<String>,
    }
}

table! {
    /// How the agent on each backend is asked, which answers a line of words.
    #[schemars(extend("required" = ["port"]))]
    Agent {
        /// The agent's TCP port, at the backend's own address.
        #[schemars(range(min = 1, max = 65535))]
        port: Leaf<i64>,
        /// From the start of a question to the start of the next. Default: `2s`.
        #[schemars(extend("default" = "2s"))]
        interval: Leaf<String>,
        /// How long a question may take; less than the interval. Default: `1s`, or half the interval
        /// where that is less.
        timeout: Leaf<String>,
        /// Text that is sent to the agent first. Default: nothing.
        #[schemars(length(max = 1024))]
        send: Leaf<String>,
        /// How long the last word of an agent that fell silent counts; more than the interval.
        /// Default: `1m`, or five intervals where that is more.
        keep: Leaf<String>,
    }
}

table! {
    /// A server.
    #[schemars(extend("required" = ["address"]))]
    Backend {
        /// What people call it. Default: its address.
        name: Leaf<String>,
        /// Where it is.
        address: Leaf<String>,
        /// `nat` and `snat`: the port that it listens on. Default: the service's.
        #[schemars(range(min = 1, max = 65535))]
        port: Leaf<i64>,
        /// With `quic`: its server ID in hexadecimal digits.
        #[schemars(extend("pattern" = "^([0-9A-Fa-f]{2}){1,15}$"))]
        server_id: Leaf<String>,
        /// Its part of the load in proportion to the others'; 0 takes no new connections.
        /// Default: 1.
        #[schemars(range(min = 0, max = 1000), extend("default" = 1))]
        weight: Leaf<i64>,
        /// What it can take in proportion to the others, for the audit of weights.
        #[schemars(range(min = 1, max = 1_000_000))]
        capacity: Leaf<i64>,
    }
}
