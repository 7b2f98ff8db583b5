//! The file as it is written. A value of the wrong shape is kept with its complaint rather than
//! refused at once, so that one look finds everything.

use std::{borrow::Cow, fmt, marker::PhantomData, ops::Range};

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
            |error| {
                Self::Bad(
                    error
                        .to_string()
                        .lines()
                        .next()
                        .unwrap_or_default()
                        .to_owned(),
                )
            },
            Self::Good,
        ))
    }
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
        #[schemars(extend("enum" = ["dsr"], "default" = "dsr"))]
        mode: Leaf<String>,
        /// Slots of the Maglev ring, a power of two. Default: 65536.
        #[schemars(range(min = 256, max = 65536), extend("default" = 65536))]
        ring_slots: Leaf<i64>,
        /// What happens to packets while no backend is usable: `drop` or `pass`. Default: `drop`.
        #[schemars(extend("enum" = ["drop", "pass"], "default" = "drop"))]
        on_empty: Leaf<String>,
        /// How the backends are probed. Without it all count as healthy.
        health: Leaf<Table<Health>>,
        /// The servers.
        #[schemars(length(min = 1))]
        backends: Tables<Backend>,
    }
}

table! {
    /// How the backends are probed.
    #[schemars(extend("required" = ["type"]))]
    Health {
        /// `tcp` or `http`.
        #[serde(rename = "type")]
        #[schemars(extend("enum" = ["tcp", "http"]))]
        kind: Leaf<String>,
        /// The port that is probed. Default: the service's.
        #[schemars(range(min = 1, max = 65535))]
        port: Leaf<i64>,
        /// From the start of a probe to the start of the next. Default: `1s`.
        #[schemars(extend("default" = "1s"))]
        interval: Leaf<String>,
        /// How long a probe may take; less than the interval. Default: `500ms`, or half the
        /// interval where that is shorter.
        timeout: Leaf<String>,
        /// Passes in a row that bring a backend up. Default: 2.
        #[schemars(range(min = 1, max = 1000), extend("default" = 2))]
        rise: Leaf<i64>,
        /// Failures in a row that take a backend down. Default: 3.
        #[schemars(range(min = 1, max = 1000), extend("default" = 3))]
        fall: Leaf<i64>,
        /// `http`: what is asked for. Default: `/`.
        #[schemars(extend("default" = "/"))]
        path: Leaf<String>,
        /// `http`: the `Host` header. Default: the backend's address.
        host: Leaf<String>,
        /// `http`: healthy status codes, as in `[ "200-299", 304 ]`. Default: `[ "200-399" ]`.
        #[schemars(extend("default" = ["200-399"]))]
        status: Leaf<Vec<NumberOr<StatusRange>>>,
        /// `http`: text that the first 64 KiB of the body must contain.
        body: Leaf<String>,
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
        /// Its part of the load in proportion to the others'; 0 takes no new connections.
        /// Default: 1.
        #[schemars(range(min = 0, max = 1000), extend("default" = 1))]
        weight: Leaf<i64>,
        /// What it can take in proportion to the others, for the audit of weights.
        #[schemars(range(min = 1, max = 1_000_000))]
        capacity: Leaf<i64>,
    }
}
