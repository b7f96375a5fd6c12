//! Which requests are order entry. `bridge/proxy/route.py` is the specification; its patterns come
//! from there, as text.

use std::collections::HashMap;
use std::sync::Arc;

use regex::bytes::{Regex, RegexBuilder};

/// What a route asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Action {
    /// A new order, or several.
    Place,
    /// A cancel, or several.
    Cancel,
    /// A cancel of everything.
    CancelAll,
    /// A read of an order.
    Read,
}

impl Action {
    /// From the mapping's word for it.
    pub fn from_text(text: &str) -> Option<Self> {
        [Self::Place, Self::Cancel, Self::CancelAll, Self::Read]
            .into_iter()
            .find(|action| action.text() == text)
    }

    /// The mapping's word for it.
    pub fn text(self) -> &'static str {
        match self {
            Self::Place => "place",
            Self::Cancel => "cancel",
            Self::CancelAll => "cancel_all",
            Self::Read => "read",
        }
    }
}

/// A route of the mapping.
pub struct Route {
    method: Vec<u8>,
    action: Action,
    pattern: Regex,
    names: Vec<String>,
    fixed: Option<Vec<u8>>,
}

impl Route {
    /// `pattern` is what `shadow.legacy.paths.pattern_of` makes of the path. The error says what
    /// is wrong with it.
    pub fn new(method: &str, path: &str, action: &str, pattern: &str) -> Result<Self, String> {
        let action = Action::from_text(action).ok_or(format!("no action {action:?}"))?;
        let pattern = RegexBuilder::new(&format!("^(?:{pattern})$"))
            .unicode(false)
            .dot_matches_new_line(true)
            .build()
            .map_err(|error| error.to_string())?;
        let names = pattern
            .capture_names()
            .flatten()
            .map(str::to_owned)
            .collect();
        let fixed = (!path.contains(':')).then(|| path.as_bytes().to_vec());
        Ok(Self {
            method: method.as_bytes().to_vec(),
            action,
            pattern,
            names,
            fixed,
        })
    }
}

/// A route that fits, and what its placeholders stand for.
#[derive(Clone)]
pub struct Match {
    route: Arc<Route>,
    params: Vec<(String, String)>,
}

/// What a request may be, as far as its head tells.
#[derive(Clone)]
pub struct Found {
    route: Option<Match>,
    by_form: Vec<(&'static [u8], Match)>,
}

impl Found {
    /// Of the route that its head names; none: only a form may make it one.
    pub fn action(&self) -> Option<Action> {
        self.route.as_ref().map(|found| found.route.action)
    }

    /// What the placeholders stand for.
    pub fn path_params(&self) -> &[(String, String)] {
        self.route.as_ref().map_or(&[], |found| &found.params)
    }

    /// It is, or its body may make it, more than a read.
    pub fn is_order(&self) -> bool {
        let more = |found: &Match| found.route.action != Action::Read;
        self.route.as_ref().is_some_and(more) || self.by_form.iter().any(|(_, found)| more(found))
    }

    /// The head has not told it all.
    pub fn is_open(&self) -> bool {
        !self.by_form.is_empty()
    }

    /// The route that counts, now that the body is known.
    pub fn settle(&mut self, content_type: &[u8], body: &[u8]) {
        let by_form = std::mem::take(&mut self.by_form);
        if by_form.is_empty() || is_multipart(content_type) {
            return;
        }
        if let Some(named) = last_value(body, b"_method") {
            let method = known(&named);
            self.route = by_form
                .into_iter()
                .find(|(one, _)| *one == method)
                .map(|(_, found)| found);
        }
    }
}

/// Rack::MethodOverride's: any other word leaves the request a POST.
const METHODS: [&[u8]; 9] = [
    b"GET", b"HEAD", b"PUT", b"POST", b"DELETE", b"OPTIONS", b"PATCH", b"LINK", b"UNLINK",
];

/// Finds the route of a request. As in Rails the first route that fits counts.
pub struct Router {
    routes: Vec<Arc<Route>>,
    exact: HashMap<Vec<u8>, Found>,
    overrides: bool,
}

impl Router {
    /// `overrides`: the monolith runs Rack::MethodOverride.
    pub fn new(routes: Vec<Route>, overrides: bool) -> Self {
        let routes = routes.into_iter().map(Arc::new).collect();
        let mut router = Self {
            routes,
            exact: HashMap::new(),
            overrides,
        };
        let fixed: Vec<_> = router
            .routes
            .iter()
            .filter_map(|route| Some((route.method.clone(), route.fixed.clone()?)))
            .collect();
        for (method, path) in fixed {
            if let Some(found) = router.of(&method, &path) {
                router
                    .exact
                    .insert([&method, b" ".as_slice(), &path].concat(), found);
            }
        }
        router
    }

    /// None: no order entry, whatever its body is. `line` is method, space and target.
    pub fn find(&self, line: &[u8], method: usize, named: &[u8], content: &[u8]) -> Option<Found> {
        let (method, target) = (&line[..method], &line[method + 1..]);
        if method == b"POST" && self.overrides {
            let form = may_override(content);
            if form || !named.is_empty() {
                return self.posted(&path_of(target), named, form);
            }
        }
        if let Some(found) = self.exact.get(line) {
            return Some(found.clone());
        }
        if !self.routes.iter().any(|route| fits(&route.method, method)) {
            return None;
        }
        self.of(method, &path_of(target))
    }

    fn posted(&self, path: &[u8], named: &[u8], form: bool) -> Option<Found> {
        let route = self.by_path(known(named), path);
        let by_form = METHODS
            .into_iter()
            .filter(|_| form)
            .filter_map(|method| Some((method, self.by_path(method, path)?)))
            .collect();
        let found = Found { route, by_form };
        (found.route.is_some() || found.is_order()).then_some(found)
    }

    fn of(&self, method: &[u8], path: &[u8]) -> Option<Found> {
        let route = self.by_path(method, path)?;
        Some(Found {
            route: Some(route),
            by_form: Vec::new(),
        })
    }

    fn by_path(&self, method: &[u8], path: &[u8]) -> Option<Match> {
        let fitting = |route: &&Arc<Route>| route.method == method;
        for route in self.routes.iter().filter(fitting) {
            if let Some(captures) = route.pattern.captures(path) {
                let params = route
                    .names
                    .iter()
                    .filter_map(|name| {
                        let value = unescaped(captures.name(name)?.as_bytes(), false);
                        Some((name.clone(), String::from_utf8_lossy(&value).into_owned()))
                    })
                    .collect();
                return Some(Match {
                    route: Arc::clone(route),
                    params,
                });
            }
        }
        // Rails answers a HEAD that it has no route for as a GET, without the body.
        if method == b"HEAD" {
            self.by_path(b"GET", path)
        } else {
            None
        }
    }
}

fn fits(route: &[u8], method: &[u8]) -> bool {
    route == method || (method == b"HEAD" && route == b"GET")
}

fn known(named: &[u8]) -> &'static [u8] {
    let fitting = |method: &&[u8]| method.eq_ignore_ascii_case(named);
    METHODS.into_iter().find(fitting).unwrap_or(b"POST")
}

/// Of a target, as Puma and Rails cut it out: without query and `;` parameters, slashes squeezed,
/// one at the end taken away.
fn path_of(target: &[u8]) -> Vec<u8> {
    let end = memchr::memchr2(b'?', b';', target).unwrap_or(target.len());
    let mut path = &target[..end];
    let mut out = Vec::with_capacity(path.len());
    if !path.starts_with(b"/") {
        let rest = memchr::memmem::find(path, b"://").map_or(&path[..0], |at| &path[at + 3..]);
        path = memchr::memchr(b'/', rest).map_or(&rest[..0], |at| &rest[at + 1..]);
        out.push(b'/');
    }
    for &byte in path {
        if byte != b'/' || out.last() != Some(&b'/') {
            out.push(byte);
        }
    }
    if out.len() > 1 && out.last() == Some(&b'/') {
        out.pop();
    }
    if out.is_empty() {
        out.push(b'/');
    }
    out
}

fn media_type(content_type: &[u8]) -> Vec<u8> {
    let end = memchr::memchr2(b';', b',', content_type).unwrap_or(content_type.len());
    content_type[..end].trim_ascii().to_ascii_lowercase()
}

fn may_override(content_type: &[u8]) -> bool {
    content_type.is_empty()
        || media_type(content_type) == b"application/x-www-form-urlencoded"
        || is_multipart(content_type)
}

fn is_multipart(content_type: &[u8]) -> bool {
    let media_type = media_type(content_type);
    [
        b"multipart/form-data".as_slice(),
        b"multipart/related",
        b"multipart/mixed",
    ]
    .contains(&media_type.as_slice())
}

/// The last value that a form gives a name; "[]" for a name that goes on in brackets.
fn last_value(body: &[u8], name: &[u8]) -> Option<Vec<u8>> {
    let body = body.strip_suffix(b"\0").unwrap_or(body);
    let mut found = None;
    for pair in body.split(|&byte| byte == b'&') {
        let spaces = pair.iter().take_while(|&&byte| byte == b' ').count();
        // Of the first pair they are part of the name; behind a separator they are not.
        let is_first = pair.as_ptr() == body.as_ptr();
        let pair = if is_first { pair } else { &pair[spaces..] };
        let equals = memchr::memchr(b'=', pair);
        let key = unescaped(&pair[..equals.unwrap_or(pair.len())], true);
        if key == name {
            found = equals.map(|at| unescaped(&pair[at + 1..], true));
        } else if key.len() > name.len() + 1 && key.starts_with(name) && key[name.len()] == b'[' {
            found = Some(b"[]".to_vec());
        }
    }
    found
}

fn unescaped(encoded: &[u8], is_form: bool) -> Vec<u8> {
    let mut out = Vec::with_capacity(encoded.len());
    let mut at = 0;
    while at < encoded.len() {
        let byte = encoded[at];
        let digits = (byte == b'%')
            .then(|| encoded.get(at + 1..at + 3))
            .flatten();
        let value = digits.and_then(|digits| {
            let high = (digits[0] as char).to_digit(16)?;
            let low = (digits[1] as char).to_digit(16)?;
            u8::try_from(high * 16 + low).ok()
        });
        if let Some(value) = value {
            out.push(value);
            at += 3;
        } else {
            out.push(if is_form && byte == b'+' { b' ' } else { byte });
            at += 1;
        }
    }
    out
}
