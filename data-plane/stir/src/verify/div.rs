//! Chains of div PASSporTs (RFC 8946 4.2; ST-69): from the token about the request's target,
//! inwards over who diverted it, to the caller's own token.

use smallvec::SmallVec;

use super::token::{
    Token, any_equal, check_credential, check_date, check_fresh, check_orig, credential, verdict,
};
use super::{Verdict, VerifyRequest};
use crate::limits::DIV_CHAIN_MAX;
use crate::outcome::{Outcome, Reason};
use crate::passport::Passport;
use crate::passport::read::Type;
use crate::trust::Trust;

/// Outermost token first.
type Chain<'c, 'a> = SmallVec<[&'c Passport<'a>; 6]>;

/// Judges a request with div tokens by their chains. One complete, valid chain suffices; several
/// may begin at the target. Header order has no meaning (ST-24).
pub(super) fn judge(trust: &Trust, request: &VerifyRequest<'_>, tokens: &[Token<'_>]) -> Verdict {
    let target = if request.request_uri.is_empty() { request.to } else { request.request_uri };
    let outermost = || {
        tokens
            .iter()
            .filter_map(Token::full)
            .filter(|token| token.jose.passport_type == Type::Div)
            .filter(|token| any_equal(&token.claims.dest, target))
    };
    let mut failure: Option<Verdict> = None;
    for token in outermost() {
        let verdict = match build(request, tokens, token) {
            Ok(chain) => judge_chain(trust, request, &chain),
            Err(reason) => verdict(reason, trust, request, token),
        };
        if verdict.outcome() == Outcome::Passed {
            return verdict;
        }
        // A chain that is complete and bad says more than one that is not complete.
        if failure.as_ref().is_none_or(|known| known.reason == Reason::DivIncomplete) {
            failure = Some(verdict);
        }
    }
    failure.unwrap_or_else(|| Verdict::of(Reason::DivIncomplete))
}

/// Follows `div` to `dest` until a token that is not div. Each step must be the only one possible,
/// so that the walk is as long as the chain.
fn build<'c, 'a>(
    request: &VerifyRequest<'_>,
    tokens: &'c [Token<'a>],
    outermost: &'c Passport<'a>,
) -> Result<Chain<'c, 'a>, Reason> {
    let most = usize::from(request.profile.div_max.min(DIV_CHAIN_MAX));
    let mut chain = Chain::new();
    let mut last = outermost;
    loop {
        chain.push(last);
        let Some(div) = &last.claims.div else { return Ok(chain) };
        if chain.len() > most {
            return Err(Reason::DivTooLong);
        }
        let inner = || {
            tokens.iter().filter_map(Token::full).filter(|token| {
                matches!(token.jose.passport_type, Type::Div | Type::Shaken | Type::Base)
                    && token.claims.dest.contains(div)
                    && !chain.iter().any(|known| std::ptr::eq(*known, *token))
            })
        };
        // Tokens of another caller's chain are no candidates, unless there is nothing else: then
        // the chain is built, and refused for its change of the caller.
        let same_orig = |token: &&Passport<'_>| token.claims.orig == last.claims.orig;
        let any_same = inner().any(|token| same_orig(&token));
        let (mut diverted, mut original) = (None, None);
        for token in inner().filter(|token| !any_same || same_orig(token)) {
            let slot = match token.jose.passport_type {
                Type::Div => &mut diverted,
                // A SHAKEN token and a base token about the same call: the former says more.
                Type::Base if original.is_some() => continue,
                _ => &mut original,
            };
            let replaced = slot.replace(token);
            let same_kind = replaced.is_some_and(|known: &Passport<'_>| {
                known.jose.passport_type == token.jose.passport_type
            });
            if same_kind {
                return Err(Reason::DivIncomplete);
            }
        }
        last = match (diverted, original) {
            (Some(token), None) | (None, Some(token)) => token,
            _ => return Err(Reason::DivIncomplete),
        };
    }
}

/// Judges a complete chain; the verdict carries what the innermost token says.
fn judge_chain(trust: &Trust, request: &VerifyRequest<'_>, chain: &Chain<'_, '_>) -> Verdict {
    let (Some(outermost), Some(innermost)) = (chain.first(), chain.last()) else {
        return Verdict::of(Reason::DivIncomplete);
    };
    let judged = || {
        for (index, token) in chain.iter().enumerate() {
            let past = &request.profile;
            let past_s = if index == 0 { past.window_past_s } else { past.window_inner_s };
            check_fresh(request, token.claims.iat, past_s)?;
            if token.claims.orig != outermost.claims.orig {
                return Err(Reason::DivOrigMismatch);
            }
        }
        check_date(request, outermost.claims.iat)?;
        check_orig(request, &outermost.claims.orig)?;
        chain
            .iter()
            .try_for_each(|token| check_credential(credential(trust, request, token)?, token))
    };
    let reason = judged().err().unwrap_or(Reason::ValidDiv);
    verdict(reason, trust, request, innermost)
}

/// Judges a div-o token: the same rules, with the inner token in `opt` (RFC 8946 5.1).
pub(super) fn judge_nested(
    trust: &Trust,
    request: &VerifyRequest<'_>,
    outermost: &Passport<'_>,
) -> Reason {
    let target = if request.request_uri.is_empty() { request.to } else { request.request_uri };
    if !any_equal(&outermost.claims.dest, target) {
        return Reason::DestMismatch;
    }
    let judged = || {
        check_fresh(request, outermost.claims.iat, request.profile.window_past_s)?;
        check_date(request, outermost.claims.iat)?;
        check_orig(request, &outermost.claims.orig)?;
        judge_inner(trust, request, outermost, request.profile.div_max.min(DIV_CHAIN_MAX))
    };
    judged().err().unwrap_or(Reason::ValidDiv)
}

/// The token itself, then what is inside it. `left` bounds the nesting.
fn judge_inner(
    trust: &Trust,
    request: &VerifyRequest<'_>,
    token: &Passport<'_>,
    left: u8,
) -> Result<(), Reason> {
    check_credential(credential(trust, request, token)?, token)?;
    let (Some(div), Some(opt)) = (&token.claims.div, &token.claims.opt) else { return Ok(()) };
    let left = left.checked_sub(1).ok_or(Reason::DivTooLong)?;
    let jose = Passport::jose(opt.as_bytes(), request.profile.jose_strict)?
        .ok_or(Reason::DivIncomplete)?;
    if !matches!(jose.passport_type, Type::DivO | Type::Shaken | Type::Base) {
        return Err(Reason::DivIncomplete);
    }
    let inner = Passport::read(opt.as_bytes(), jose)?;
    check_fresh(request, inner.claims.iat, request.profile.window_inner_s)?;
    if inner.claims.orig != token.claims.orig {
        return Err(Reason::DivOrigMismatch);
    }
    if !inner.claims.dest.contains(div) {
        return Err(Reason::DivIncomplete);
    }
    judge_inner(trust, request, &inner, left)
}

#[cfg(test)]
#[path = "div_tests.rs"]
mod tests;
