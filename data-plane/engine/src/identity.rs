//! Sign and verify jobs: made while messages are handled, run as one batch at the end of the turn or
//! on a helper thread, and fed back (design 7). The crypto itself is `ravelin-stir`'s.

use std::sync::Arc;

use ravelin_policy::{AttestationLevel, Snapshot, TrunkId};
use ravelin_stir::{
    batch::{SignBatch, sign_batch, verify_batch},
    passport::MediaKeys,
    sign::{Attest, SignRequest},
    tn::{NumberPlan, Parties, Party, UserIsTn, parties_in, party_in},
    verify::{Profile, Verdict, VerifyRequest},
};
use ravelin_wire::{
    sdp::fingerprints,
    sip::{HeaderName, Message, NameAddr, parse_date},
};
use smallvec::SmallVec;

use crate::loadout::Loadout;

/// Names a call of one shard; of no use once the call is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CallKey {
    pub(crate) slot: u32,
    pub(crate) generation: u32,
}

/// An outgoing INVITE waits for this signature.
#[derive(Debug)]
pub struct SignJob {
    pub(crate) call: CallKey,
    pub(crate) attempt: u16,
    /// Holds the signer that the call began with.
    loadout: Arc<Loadout>,
    request: SignRequest,
}

impl SignJob {
    pub(crate) fn new(
        call: CallKey,
        attempt: u16,
        loadout: &Arc<Loadout>,
        request: SignRequest,
    ) -> Self {
        Self { call, attempt, loadout: Arc::clone(loadout), request }
    }
}

/// A call waits for this verdict.
#[derive(Debug)]
pub struct VerifyJob {
    pub(crate) call: CallKey,
    /// Holds the trust that the call began with.
    loadout: Arc<Loadout>,
    identities: SmallVec<[Box<[u8]>; 1]>,
    orig: Parties,
    to: Parties,
    request_uri: Parties,
    date: Option<u64>,
    media_keys: MediaKeys,
    now_unix: u64,
    profile: Profile,
}

impl VerifyJob {
    /// Of an INVITE as it was received, before any rewrite (ST-17).
    pub(crate) fn new(
        call: CallKey,
        loadout: &Arc<Loadout>,
        invite: &Message<'_>,
        caller: &[u8],
        plan: &NumberPlan<'_>,
        now_unix: u64,
    ) -> Self {
        let uris = |uri: &[u8]| parties_in(uri, UserIsTn::IfItLooksSo, plan);
        Self {
            call,
            loadout: Arc::clone(loadout),
            identities: invite
                .headers()
                .filter(|header| header.name == HeaderName::Identity)
                .map(|header| header.value.into())
                .collect(),
            orig: uris(caller),
            to: uris(invite.to().uri),
            request_uri: uris(invite.request_uri().unwrap_or_default()),
            date: invite.header(HeaderName::Date).and_then(parse_date),
            media_keys: media_keys(invite),
            now_unix,
            profile: Profile::default(),
        }
    }
}

/// Fingerprints of the SDP in the body, alone or in a multipart: what `mky` claims are about.
fn media_keys(invite: &Message<'_>) -> MediaKeys {
    let sdp =
        invite.content().and_then(|kind| kind.find_part(invite.body(), b"application", b"sdp"));
    MediaKeys::of_sdp(fingerprints(sdp.map_or(&[][..], |part| part.body)))
}

/// The jobs of one turn. Take them, run them anywhere, hand the results back; again until there are
/// none, because a verified call may then want a signature.
#[derive(Debug, Default)]
pub struct Jobs {
    sign: Vec<SignJob>,
    verify: Vec<VerifyJob>,
}

impl Jobs {
    pub(crate) fn sign(&mut self, job: SignJob) {
        self.sign.push(job);
    }

    pub(crate) fn verify(&mut self, job: VerifyJob) {
        self.verify.push(job);
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.sign.is_empty() && self.verify.is_empty()
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.sign.len() + self.verify.len()
    }

    /// Signs and verifies all of them.
    #[must_use]
    pub fn run(self) -> JobResults {
        let mut results = JobResults::default();
        let mut batch = SignBatch::default();
        let mut rest = self.sign.as_slice();
        while let Some(first) = rest.first() {
            let same = |job: &&SignJob| Arc::ptr_eq(&job.loadout, &first.loadout);
            let run = rest.iter().take_while(same).count();
            let Some((jobs, after)) = rest.split_at_checked(run) else { break };
            rest = after;
            let Some(signer) = &first.loadout.signer else {
                let failed = |job: &SignJob| (job.call, job.attempt, None);
                results.signed.extend(jobs.iter().map(failed));
                continue;
            };
            sign_batch(signer, jobs.iter().map(|job| &job.request), &mut batch);
            results.signed.extend(
                jobs.iter()
                    .zip(batch.iter())
                    .map(|(job, value)| (job.call, job.attempt, value.ok().map(<[u8]>::to_vec))),
            );
        }
        let mut verdicts = Vec::new();
        for job in self.verify {
            let identities: SmallVec<[&[u8]; 4]> =
                job.identities.iter().map(AsRef::as_ref).collect();
            let request = VerifyRequest {
                identities: &identities,
                orig: &job.orig,
                to: &job.to,
                request_uri: &job.request_uri,
                date: job.date,
                media_keys: Some(&job.media_keys),
                now_unix: job.now_unix,
                profile: &job.profile,
            };
            verify_batch(&job.loadout.trust, std::iter::once(request), &mut verdicts);
            if let Some(verdict) = verdicts.pop() {
                results.verified.push((job.call, verdict));
            }
        }
        results
    }
}

/// What became of the jobs of one turn.
#[derive(Debug, Default)]
pub struct JobResults {
    /// Call, attempt, header value; `None` if it could not be signed.
    pub(crate) signed: Vec<(CallKey, u16, Option<Vec<u8>>)>,
    pub(crate) verified: Vec<(CallKey, Verdict)>,
}

/// Who calls: P-Asserted-Identity if the peer may assert one, else From (ST-17). Raw URI.
pub(crate) fn caller_uri<'a>(invite: &Message<'a>, trusted: bool) -> &'a [u8] {
    let asserted = || {
        let mut values = invite.values(HeaderName::PAssertedIdentity);
        values.find_map(NameAddr::parse).map(|party| party.uri)
    };
    trusted.then(asserted).flatten().unwrap_or_else(|| invite.from().uri)
}

/// Why an outgoing INVITE carries no signature of ours; the text of the CDR.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unsigned {
    /// The trunk does not ask for one.
    NotAsked,
    /// The provider's credential is missing.
    NoCredential,
    /// The attestation table gives no level (ST-10).
    NoAuthority,
    /// The call came with an Identity that is passed on (ST-32).
    PassedOn,
    /// Calling or called party cannot be named in a PASSporT.
    NoNumber,
    /// Signing failed.
    Failed,
}

impl Unsigned {
    pub(crate) const ALL: [Self; 6] = [
        Self::NotAsked,
        Self::NoCredential,
        Self::NoAuthority,
        Self::PassedOn,
        Self::NoNumber,
        Self::Failed,
    ];

    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::NotAsked => "unsigned:not-asked",
            Self::NoCredential => "unsigned:no-credential",
            Self::NoAuthority => "unsigned:no-authority",
            Self::PassedOn => "unsigned:passed-on",
            Self::NoNumber => "unsigned:no-number",
            Self::Failed => "unsigned:failed",
        }
    }
}

/// How numbers without `+` of a trunk are completed, in signing and in verifying (ST-14).
pub(crate) fn number_plan(snapshot: &Snapshot, trunk: Option<TrunkId>) -> NumberPlan<'static> {
    match trunk.and_then(|id| snapshot.trunk(id)).map(|trunk| trunk.number_plan) {
        Some(ravelin_policy::NumberPlan::Nanp) => NumberPlan::NANP,
        Some(ravelin_policy::NumberPlan::E164) => NumberPlan::E164,
        None => NumberPlan::CANONICAL,
    }
}

/// What a SHAKEN token for one outgoing INVITE says. `dest` is the To URI as it leaves. Each party
/// is named in the plan of its trunk.
pub(crate) fn sign_request(
    level: AttestationLevel,
    (caller, callers): (&[u8], NumberPlan<'_>),
    (dest, callees): (&[u8], NumberPlan<'_>),
    now_unix: u64,
    random: [u8; 16],
) -> Option<SignRequest> {
    let orig = party_in(caller, UserIsTn::IfItLooksSo, &callers)?;
    let dest: Party = party_in(dest, UserIsTn::IfItLooksSo, &callees)?;
    Some(SignRequest {
        attest: match level {
            AttestationLevel::A => Attest::A,
            AttestationLevel::B => Attest::B,
            AttestationLevel::C => Attest::C,
        },
        orig,
        dest: SmallVec::from_iter([dest]),
        iat: now_unix,
        origid: ravelin_stir::sign::uuid_v4(random),
    })
}
