//! Many tokens in one go. A batch saves dispatch, buffers and cache misses; ECDSA P-256 itself has
//! no batch form here (ST-82). The result of a batch is the result of its members (ST-83).

use std::ops::Range;

use crate::sign::{SignError, SignRequest, Signer};
use crate::trust::Trust;
use crate::verify::{Verdict, VerifyRequest};

/// Signed header values, one per request, in one buffer that is kept between batches.
#[derive(Debug, Default)]
pub struct SignBatch {
    arena: Vec<u8>,
    payload: Vec<u8>,
    results: Vec<Result<Range<usize>, SignError>>,
}

impl SignBatch {
    /// The header value of request `index` of the last batch.
    #[must_use]
    pub fn get(&self, index: usize) -> Option<Result<&[u8], SignError>> {
        let result = self.results.get(index)?;
        Some(match result {
            Ok(range) => Ok(self.arena.get(range.clone()).unwrap_or_default()),
            Err(error) => Err(*error),
        })
    }

    /// Results in the order of the requests.
    pub fn iter(&self) -> impl Iterator<Item = Result<&[u8], SignError>> {
        (0..self.results.len()).filter_map(|index| self.get(index))
    }
}

/// Signs each request and replaces what `batch` held.
pub fn sign_batch<'a>(
    signer: &Signer,
    requests: impl IntoIterator<Item = &'a SignRequest>,
    batch: &mut SignBatch,
) {
    batch.arena.clear();
    batch.results.clear();
    for request in requests {
        let start = batch.arena.len();
        let result = signer.append(request, &mut batch.payload, &mut batch.arena);
        if result.is_err() {
            batch.arena.truncate(start);
        }
        batch.results.push(result.map(|()| start..batch.arena.len()));
    }
}

/// Judges each request and replaces what `verdicts` held.
pub fn verify_batch<'a>(
    trust: &Trust,
    requests: impl IntoIterator<Item = VerifyRequest<'a>>,
    verdicts: &mut Vec<Verdict>,
) {
    verdicts.clear();
    verdicts.extend(requests.into_iter().map(|request| crate::verify::verify(trust, &request)));
}
