//! `traceparent`, as the W3C's Trace Context has it: read strictly, because it comes from agents.

use std::fmt;

use http::HeaderMap;

/// The header.
pub const TRACEPARENT: &str = "traceparent";
/// What vendors add to it; neither read nor passed on.
pub const TRACESTATE: &str = "tracestate";

/// Somebody's span that a purchase belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceParent {
    /// The trace.
    pub trace: [u8; 16],
    /// The span in it.
    pub span: [u8; 8],
}

impl TraceParent {
    /// Reads a header's value; none for anything but what the standard allows.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let lower = |part: &str| part.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'a'..=b'f'));
        let mut parts = text.splitn(5, '-');
        let (version, trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let lengths = (version.len(), trace.len(), span.len(), flags.len()) == (2, 32, 16, 2);
        // Later versions may add parts; this one has none.
        let ends = version != "00" || parts.next().is_none();
        if !lengths || !ends || version == "ff" || ![version, trace, span, flags].into_iter().all(lower) {
            return None;
        }
        let mut parent = Self { trace: [0; 16], span: [0; 8] };
        hex::decode_to_slice(trace, &mut parent.trace).ok()?;
        hex::decode_to_slice(span, &mut parent.span).ok()?;
        (parent.trace != [0; 16] && parent.span != [0; 8]).then_some(parent)
    }

    /// The one valid `traceparent` of a request.
    #[must_use]
    pub fn of(headers: &HeaderMap) -> Option<Self> {
        let mut values = headers.get_all(TRACEPARENT).iter();
        let (value, None) = (values.next()?, values.next()) else { return None };
        Self::parse(value.to_str().ok()?)
    }
}

impl fmt::Display for TraceParent {
    /// As it is sent: sampled, for what is told is told whole.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{}-{}-01", hex::encode(self.trace), hex::encode(self.span))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_standard_allows_is_a_parent() {
        let good = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let parent = TraceParent::parse(good).unwrap();
        assert_eq!(parent.to_string(), good);
        assert_eq!(TraceParent::parse(&good.replace("-01", "-00")), Some(parent), "flags do not hide a purchase");
        assert_eq!(
            TraceParent::parse(&format!("{}-what-comes", good.replacen("00", "cc", 1))),
            Some(parent),
            "a later version"
        );
        let bad = [
            String::new(),
            good.to_uppercase(),
            format!("{good}-"),
            format!("{good}-more"),
            format!("{good} "),
            good.replacen("00", "ff", 1),
            good.replace("0af7651916cd43dd8448eb211c80319c", &"0".repeat(32)),
            good.replace("b7ad6b7169203331", &"0".repeat(16)),
            good.replace("b7ad6b7169203331", "b7ad6b716920333"),
            good.replace("b7ad", "b7ag"),
            good.replace("-01", ""),
            good.replace("-01", "-1"),
            good.replace('-', "_"),
        ];
        for text in bad {
            assert_eq!(TraceParent::parse(&text), None, "{text:?}");
        }
    }

    #[test]
    fn two_of_them_are_none() {
        let mut headers = HeaderMap::new();
        let value = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".parse::<http::HeaderValue>().unwrap();
        headers.append(TRACEPARENT, value.clone());
        assert!(TraceParent::of(&headers).is_some());
        headers.append(TRACEPARENT, value);
        assert!(TraceParent::of(&headers).is_none());
    }
}
