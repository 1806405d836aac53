//! A copy of all tokens, grants and quotas, as they were at one time.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::time::Instant;

use crate::{
    access::{
        error::Error,
        rights::Rights,
        token::{Hash, OwnToken, are_equal},
    },
    model::{Allowance, Operation, Principal, QuotaHolder, QuotaKey, TopicPattern},
    storage::{AccessVersion, TokenEnd, ValidToken},
};

/// How often the use of a token is recorded.
const USE_INTERVAL: Duration = Duration::from_secs(60);

/// A copy of all tokens, grants and quotas.
#[derive(Debug, Default)]
pub(crate) struct Snapshot {
    pub version: AccessVersion,
    tokens: HashMap<Arc<str>, Arc<KnownToken>>,
    rights: HashMap<Principal, Rights>,
    none: Rights,
    quotas: Quotas,
}

/// All quotas.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Quotas {
    by_principal: HashMap<Principal, Allowance>,
    /// What holds for a principal where it has no quota of its own.
    everyone: Allowance,
}

/// What a copy is put together from.
pub(crate) struct Loaded {
    pub version: AccessVersion,
    pub tokens: Vec<ValidToken>,
    pub grants: Vec<(Principal, Operation, TopicPattern)>,
    pub quotas: Vec<(QuotaKey, u64)>,
}

/// A token that is valid, or was until lately.
#[derive(Debug)]
pub(crate) struct KnownToken {
    pub id: Arc<str>,
    pub principal: Principal,
    hash: Hash,
    /// When it expires, by the database's clock as of when it was read.
    pub valid_until: Option<Instant>,
    end: Option<TokenEnd>,
    /// When its use was last recorded, in milliseconds since an arbitrary start, plus 1; 0 if it was
    /// not. Shared by all copies of the token.
    recorded: Arc<AtomicU64>,
}

impl Snapshot {
    /// Puts a copy together; what is remembered of the use of tokens comes from the one before.
    /// `built_in` holds for a limit that no quota sets.
    pub(crate) fn new(loaded: Loaded, built_in: Allowance, before: &Self) -> Self {
        let Loaded { version, tokens, grants, quotas } = loaded;
        let now = Instant::now();
        let known = |token: ValidToken| {
            let recorded = before.tokens.get(token.id.as_str());
            let known = KnownToken {
                id: token.id.into(),
                principal: token.principal,
                // A hash of another length belongs to no token.
                hash: token.hash.try_into().ok()?,
                valid_until: token.expires_in.and_then(|left| now.checked_add(left)),
                end: token.end,
                recorded: recorded.map(|token| token.recorded.clone()).unwrap_or_default(),
            };
            Some((known.id.clone(), Arc::new(known)))
        };
        let mut rights = HashMap::<_, Rights>::new();
        for (principal, operation, topics) in grants {
            rights.entry(principal).or_default().add(operation, &topics);
        }
        let tokens = tokens.into_iter().filter_map(known).collect();
        let quotas = Quotas::new(quotas, built_in);
        Self { version, tokens, rights, none: Rights::default(), quotas }
    }

    /// The token that a caller presents. It may have ended.
    pub(crate) fn recognise(&self, presented: &OwnToken<'_>) -> Result<&Arc<KnownToken>, Error> {
        let known = self.tokens.get(presented.id).ok_or(Error::TokenUnknown)?;
        if !are_equal(&known.hash, &presented.hash) {
            return Err(Error::TokenUnknown);
        }
        Ok(known)
    }

    /// Whether a token that was recognised before is still valid.
    pub(crate) fn check_again(&self, token: &KnownToken) -> Result<&Arc<KnownToken>, Error> {
        let known = self.tokens.get(&token.id).ok_or(Error::TokenUnknown)?;
        known.check()?;
        Ok(known)
    }

    /// What a principal may do.
    pub(crate) fn rights(&self, principal: &Principal) -> &Rights {
        self.rights.get(principal).unwrap_or(&self.none)
    }

    /// How much a principal may do and have.
    pub(crate) fn allowance(&self, principal: &Principal) -> Allowance {
        let Quotas { by_principal, everyone } = &self.quotas;
        by_principal.get(principal).map_or(*everyone, |own| own.or(*everyone))
    }

    /// Whether it has the same quotas as another one.
    pub(crate) fn has_quotas_of(&self, other: &Self) -> bool {
        self.quotas == other.quotas
    }

    /// The first of some names that has a grant.
    pub(crate) fn first_with_grant(&self, names: &[String]) -> Option<Principal> {
        let mut principals = names.iter().filter_map(|name| Principal::parse(name).ok());
        principals.find(|principal| self.rights.contains_key(principal))
    }
}

impl Quotas {
    fn new(quotas: Vec<(QuotaKey, u64)>, built_in: Allowance) -> Self {
        let (mut by_principal, mut everyone) = (HashMap::<_, Allowance>::new(), built_in);
        for (QuotaKey { holder, limit }, value) in quotas {
            let allowance = match holder {
                QuotaHolder::Everyone => &mut everyone,
                QuotaHolder::Of(principal) => by_principal.entry(principal).or_default(),
            };
            *allowance = allowance.with(limit, value);
        }
        Self { by_principal, everyone }
    }
}

impl KnownToken {
    /// Whether it is valid now.
    pub(crate) fn check(&self) -> Result<(), Error> {
        match self.end {
            Some(TokenEnd::Revoked) => Err(Error::TokenRevoked),
            Some(TokenEnd::Expired) => Err(Error::TokenExpired),
            None if self.valid_until.is_some_and(|end| end <= Instant::now()) => {
                Err(Error::TokenExpired)
            }
            None => Ok(()),
        }
    }

    /// Whether its use is to be recorded now, some time after an arbitrary start; true for one caller
    /// only.
    pub(crate) fn is_use_due(&self, since_start: Duration) -> bool {
        let now = since_start.as_millis() as u64 + 1;
        let last = self.recorded.load(Ordering::Relaxed);
        let is_due = last == 0 || now.saturating_sub(last) >= USE_INTERVAL.as_millis() as u64;
        let (success, failure) = (Ordering::Relaxed, Ordering::Relaxed);
        is_due && self.recorded.compare_exchange(last, now, success, failure).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::token::{Minted, Presented};
    use crate::model::Limit;

    fn token(minted: &Minted, end: Option<TokenEnd>, expires_in: Option<Duration>) -> ValidToken {
        ValidToken {
            id: minted.id.clone(),
            principal: Principal::parse("shop").unwrap(),
            hash: minted.hash.to_vec(),
            expires_in,
            end,
        }
    }

    fn snapshot(tokens: Vec<ValidToken>, before: &Snapshot) -> Snapshot {
        let read = (
            Principal::parse("shop").unwrap(),
            Operation::Read,
            TopicPattern::parse("orders").unwrap(),
        );
        let shop = || QuotaHolder::Of(Principal::parse("shop").unwrap());
        let key = |holder, limit| QuotaKey { holder, limit };
        let quotas = vec![
            (key(QuotaHolder::Everyone, Limit::Streams), 5),
            (key(QuotaHolder::Everyone, Limit::Topics), 6),
            (key(shop(), Limit::Streams), 7),
        ];
        let (version, grants) = (AccessVersion::default(), vec![read]);
        let built_in = Allowance::default().with(Limit::Topics, 1).with(Limit::Producers, 2);
        Snapshot::new(Loaded { version, tokens, grants, quotas }, built_in, before)
    }

    fn recognise(snapshot: &Snapshot, text: &str) -> Result<Principal, Error> {
        let header = format!("Bearer {text}");
        let found = Presented::find(std::iter::once(header.as_bytes()), false).unwrap().unwrap();
        let Presented::Own(presented) = found else { panic!("it is the broker's own") };
        let token = snapshot.recognise(&presented)?;
        token.check().map(|()| token.principal.clone())
    }

    #[test]
    fn only_the_whole_token_is_recognised() {
        let (minted, other) = (Minted::new().unwrap(), Minted::new().unwrap());
        let snapshot = snapshot(vec![token(&minted, None, None)], &Snapshot::default());
        assert_eq!(recognise(&snapshot, &minted.text).unwrap().as_str(), "shop");
        let forged = format!("{}{}", &minted.text[..17], &other.text[17..]);
        for unknown in [&other.text, &forged] {
            assert!(matches!(recognise(&snapshot, unknown), Err(Error::TokenUnknown)));
        }
    }

    #[test]
    fn a_token_ends_when_it_is_revoked_or_its_time_has_passed() {
        let minted = Minted::new().unwrap();
        for (end, is_revoked) in [(TokenEnd::Revoked, true), (TokenEnd::Expired, false)] {
            let snapshot = snapshot(vec![token(&minted, Some(end), None)], &Snapshot::default());
            let error = recognise(&snapshot, &minted.text).unwrap_err();
            assert_eq!(matches!(error, Error::TokenRevoked), is_revoked, "{error}");
            assert_eq!(matches!(error, Error::TokenExpired), !is_revoked, "{error}");
        }
        let with_time_left = |left| {
            let left = Some(Duration::from_secs(left));
            recognise(
                &snapshot(vec![token(&minted, None, left)], &Snapshot::default()),
                &minted.text,
            )
        };
        with_time_left(3_600).unwrap();
        assert!(matches!(with_time_left(0), Err(Error::TokenExpired)));
    }

    #[test]
    fn a_principals_own_quota_counts_then_everyones_and_then_the_built_in_one() {
        let snapshot = snapshot(Vec::new(), &Snapshot::default());
        let of = |principal| {
            let allowance = snapshot.allowance(&Principal::parse(principal).unwrap());
            Limit::ALL.map(|limit| allowance.get(limit))
        };
        assert_eq!(of("shop"), [None, None, Some(7), Some(6), Some(2), None]);
        assert_eq!(of("bank"), [None, None, Some(5), Some(6), Some(2), None]);
    }

    #[test]
    fn a_certificate_stands_for_its_first_name_that_has_a_grant() {
        let snapshot = snapshot(Vec::new(), &Snapshot::default());
        let first = |names: &[&str]| {
            let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
            snapshot.first_with_grant(&names).map(|found| found.as_str().to_owned())
        };
        assert_eq!(first(&["*.example", "office", "shop"]).as_deref(), Some("shop"));
        assert_eq!(first(&["office", ""]), None);
        assert_eq!(first(&[]), None);
    }

    #[test]
    fn the_use_of_a_token_is_due_once_a_minute_whatever_snapshot_it_is_in() {
        let mut time = Duration::ZERO;
        let minted = Minted::new().unwrap();
        let mut snapshot = self::snapshot(vec![token(&minted, None, None)], &Snapshot::default());
        let is_due = |snapshot: &Snapshot, time| snapshot.tokens[&*minted.id].is_use_due(time);
        assert!(is_due(&snapshot, time) && !is_due(&snapshot, time));
        snapshot = self::snapshot(vec![token(&minted, None, None)], &snapshot);
        assert!(!is_due(&snapshot, time));
        time += USE_INTERVAL;
        assert!(is_due(&snapshot, time) && !is_due(&snapshot, time));
    }
}
