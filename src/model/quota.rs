//! How much a principal may do and have.

use std::{fmt, time::SystemTime};

use super::{Principal, RegistrationId, invalid::InvalidValue};

/// What a quota limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Limit {
    /// Messages that are published, a second and broker.
    MessagesPerSecond,
    /// Bytes of payloads, keys and headers that are published, a second and broker.
    BytesPerSecond,
    /// Streams of a broker that are open and consume.
    Streams,
    /// Topics of the database that the principal created.
    Topics,
    /// Producers of the database that belong to the principal.
    Producers,
    /// Consumers of the database that belong to the principal.
    Consumers,
}

/// Whose quota it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum QuotaHolder {
    /// Each principal that has none of its own.
    Everyone,
    /// One principal.
    Of(Principal),
}

/// What identifies a quota.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuotaKey {
    /// Whose it is.
    pub holder: QuotaHolder,
    /// What it limits.
    pub limit: Limit,
}

/// How much of something a principal may do or have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quota {
    /// Whose it is, and what it limits.
    pub key: QuotaKey,
    /// The most that is permitted.
    pub value: u64,
    /// When it was last set.
    pub changed_at: SystemTime,
    /// The principal that last set it; empty if the broker did not authenticate.
    pub changed_by: String,
}

/// The limits that hold for a principal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Allowance([Option<u64>; Limit::ALL.len()]);

/// Who registers or creates something, and how many of the kind they may have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claimant {
    /// Whom it will belong to.
    pub principal: Principal,
    /// The most of the kind that they may have.
    pub limit: usize,
}

impl Claimant {
    /// Whether `claimant` may use what belongs to `owner`. Without access control, everyone may.
    pub fn may_use(claimant: Option<&Self>, owner: Option<&Principal>) -> bool {
        claimant.is_none_or(|claimant| owner == Some(&claimant.principal))
    }
}

impl Limit {
    /// The limit of registrations of this kind.
    pub fn of_registration(id: &RegistrationId) -> Self {
        match id {
            RegistrationId::Producer(_) => Self::Producers,
            RegistrationId::Consumer(_) => Self::Consumers,
        }
    }

    /// All limits.
    pub const ALL: [Self; 6] = [
        Self::MessagesPerSecond,
        Self::BytesPerSecond,
        Self::Streams,
        Self::Topics,
        Self::Producers,
        Self::Consumers,
    ];

    /// The largest value.
    pub const MAX_VALUE: u64 = 1_000_000_000_000;

    /// The limit's name, as it is stored and shown.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::MessagesPerSecond => "messages-per-second",
            Self::BytesPerSecond => "bytes-per-second",
            Self::Streams => "streams",
            Self::Topics => "topics",
            Self::Producers => "producers",
            Self::Consumers => "consumers",
        }
    }

    /// The limit of a name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|limit| limit.as_str() == name)
    }

    /// Checks a value that a client gave.
    pub fn check(value: i64) -> Result<u64, InvalidValue> {
        match u64::try_from(value) {
            Ok(1..=Self::MAX_VALUE) => Ok(value.unsigned_abs()),
            _ => {
                let problem = format!("is {value}, and must be from 1 to {}", Self::MAX_VALUE);
                let limit = (value > 0).then_some(Self::MAX_VALUE);
                Err(InvalidValue { limit, ..InvalidValue::new(problem) })
            }
        }
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl QuotaHolder {
    /// What stands for everyone. No principal has this name.
    const EVERYONE: &str = "*";

    /// Checks what a client gave.
    pub fn parse(text: &str) -> Result<Self, InvalidValue> {
        match text {
            Self::EVERYONE => Ok(Self::Everyone),
            principal => Principal::parse(principal).map(Self::Of),
        }
    }

    /// Accepts a holder that comes from the database, where only checked ones are stored.
    pub(crate) fn stored(text: &str) -> Self {
        match text {
            Self::EVERYONE => Self::Everyone,
            principal => Self::Of(Principal::stored(principal)),
        }
    }

    /// The holder as text.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Everyone => Self::EVERYONE,
            Self::Of(principal) => principal.as_str(),
        }
    }
}

impl fmt::Display for QuotaHolder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl QuotaKey {
    /// The quota of a name, as it is displayed; `None` if it is not the name of one.
    pub fn parse(name: &str) -> Option<Self> {
        let (holder, limit) = name.split_once(' ')?;
        Some(Self { holder: QuotaHolder::parse(holder).ok()?, limit: Limit::parse(limit)? })
    }

    /// Its parts as texts, in the order of lists.
    pub fn texts(&self) -> [&str; 2] {
        [self.holder.as_str(), self.limit.as_str()]
    }
}

/// A name that no other quota has.
impl fmt::Display for QuotaKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.holder, self.limit)
    }
}

impl Allowance {
    /// The value of a limit; `None` if there is none.
    pub fn get(&self, limit: Limit) -> Option<u64> {
        self.0[limit as usize]
    }

    /// The same with a value for a limit.
    #[must_use]
    pub fn with(mut self, limit: Limit, value: u64) -> Self {
        self.0[limit as usize] = Some(value);
        self
    }

    /// These limits, and others where these have none.
    #[must_use]
    pub fn or(self, others: Self) -> Self {
        Self(std::array::from_fn(|index| self.0[index].or(others.0[index])))
    }

    /// How many of something there may be.
    pub fn count(&self, limit: Limit) -> usize {
        self.get(limit).and_then(|value| usize::try_from(value).ok()).unwrap_or(usize::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_has_one_name_and_one_place() {
        for (place, limit) in Limit::ALL.into_iter().enumerate() {
            assert_eq!((Limit::parse(limit.as_str()), limit as usize), (Some(limit), place));
        }
        assert_eq!(Limit::parse("Streams"), None);
    }

    #[test]
    fn a_value_is_a_positive_number_within_the_limit() {
        assert_eq!(
            (Limit::check(1), Limit::check(1_000_000_000_000)),
            (Ok(1), Ok(1_000_000_000_000))
        );
        for (bad, limit) in [(0, None), (-1, None), (1_000_000_000_001, Some(1_000_000_000_000))] {
            assert_eq!(Limit::check(bad).unwrap_err().limit, limit, "{bad}");
        }
    }

    #[test]
    fn an_asterisk_stands_for_everyone() {
        for text in ["*", "shop"] {
            assert_eq!(QuotaHolder::parse(text).unwrap().as_str(), text);
            assert_eq!(QuotaHolder::stored(text), QuotaHolder::parse(text).unwrap());
        }
        assert!(QuotaHolder::parse("").is_err() && QuotaHolder::parse("shop*").is_err());
        let key = QuotaKey { holder: QuotaHolder::Everyone, limit: Limit::Topics };
        assert_eq!(QuotaKey::parse(&key.to_string()), Some(key));
        assert_eq!(QuotaKey::parse("* nothing"), None);
    }

    #[test]
    fn an_own_limit_takes_precedence() {
        let own = Allowance::default().with(Limit::Streams, 3);
        let others = Allowance::default().with(Limit::Streams, 5).with(Limit::Topics, 7);
        let both = own.or(others);
        assert_eq!((both.get(Limit::Streams), both.count(Limit::Topics)), (Some(3), 7));
        assert_eq!(both.count(Limit::Producers), usize::MAX);
    }
}
