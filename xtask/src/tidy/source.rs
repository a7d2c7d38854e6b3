//! One Rust file as facts: how long its functions are, and what it does that nobody here does.

use proc_macro2::Span;
use syn::spanned::Spanned;
use syn::visit::{self, Visit};

pub struct Function {
    pub name: String,
    /// The line it begins on, counted from 1.
    pub line: usize,
    pub lines: usize,
}

#[derive(Default)]
pub struct Facts {
    pub functions: Vec<Function>,
    /// Line, and what is wrong there.
    pub banned: Vec<(usize, String)>,
    in_test: bool,
}

impl Facts {
    /// Reads a file; `is_test` says that all of it is test code.
    pub fn of(text: &str, is_test: bool) -> syn::Result<Self> {
        let mut facts = Self { in_test: is_test, ..Self::default() };
        facts.visit_file(&syn::parse_file(text)?);
        Ok(facts)
    }

    fn measure(&mut self, signature: &syn::Signature, end: Span) {
        let (begin, end) = (signature.span().start().line, end.end().line);
        self.functions.push(Function { name: signature.ident.to_string(), line: begin, lines: end + 1 - begin });
    }

    fn ban(&mut self, span: Span, what: &str) {
        self.banned.push((span.start().line, what.to_owned()));
    }

    fn inside(&mut self, is_test: bool, visit: impl FnOnce(&mut Self)) {
        let outside = self.in_test;
        self.in_test |= is_test;
        visit(self);
        self.in_test = outside;
    }
}

impl<'ast> Visit<'ast> for Facts {
    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        self.measure(&item.sig, item.block.span());
        self.inside(is_test(&item.attrs), |facts| visit::visit_item_fn(facts, item));
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        self.measure(&item.sig, item.block.span());
        visit::visit_impl_item_fn(self, item);
    }

    fn visit_trait_item_fn(&mut self, item: &'ast syn::TraitItemFn) {
        if let Some(block) = &item.default {
            self.measure(&item.sig, block.span());
        }
        visit::visit_trait_item_fn(self, item);
    }

    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        self.inside(is_test(&item.attrs), |facts| visit::visit_item_mod(facts, item));
    }

    fn visit_attribute(&mut self, attribute: &'ast syn::Attribute) {
        if attribute.path().is_ident("ignore") {
            self.ban(attribute.span(), "an ignored test tests nothing");
        }
        visit::visit_attribute(self, attribute);
    }

    fn visit_macro(&mut self, call: &'ast syn::Macro) {
        if call.path.segments.last().is_some_and(|segment| segment.ident == "include") {
            self.ban(call.span(), "`include!` hides code from this check: make it a module");
        }
        visit::visit_macro(self, call);
    }

    fn visit_expr_call(&mut self, call: &'ast syn::ExprCall) {
        if let syn::Expr::Path(called) = &*call.func {
            let sleeps = called.path.segments.last().is_some_and(|segment| segment.ident == "sleep");
            if sleeps && self.in_test {
                self.ban(call.span(), "a test sleeps: wait on a condition instead");
            }
        }
        visit::visit_expr_call(self, call);
    }
}

/// `#[cfg(test)]`, `#[test]`, `#[tokio::test]`.
fn is_test(attributes: &[syn::Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        let named = attribute.path().segments.last().is_some_and(|segment| segment.ident == "test");
        let configured = attribute.path().is_ident("cfg")
            && attribute.meta.require_list().is_ok_and(|list| list.tokens.to_string() == "test");
        named || configured
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(text: &str) -> Facts {
        Facts::of(text, false).unwrap()
    }

    #[test]
    fn functions_of_every_kind_are_measured_without_their_comments() {
        let found = facts(
            "/// Doc.\nfn a() {\n}\nimpl X {\n    /// Doc.\n    #[inline]\n    pub fn b(\n        &self,\n    ) {}\n}\n\
             trait T {\n    fn c();\n    fn d() {\n    }\n}\nmod m { fn e() {} }\n",
        );
        let found: Vec<_> =
            found.functions.iter().map(|found| (found.name.as_str(), found.line, found.lines)).collect();
        assert_eq!(found, [("a", 2, 2), ("b", 7, 3), ("d", 13, 2), ("e", 16, 1)]);
    }

    #[test]
    fn ignored_tests_and_included_code_are_found_and_included_text_is_not() {
        let found = facts(
            "#[test]\n#[ignore]\nfn a() {}\ninclude!(\"x.rs\");\nconst T: &str = include_str!(\"x\");\n// include!(y)\n",
        );
        assert_eq!(found.banned.iter().map(|(line, _)| *line).collect::<Vec<_>>(), [2, 4]);
    }

    #[test]
    fn a_test_function_outside_a_test_module_is_a_test_too() {
        assert_eq!(facts("#[tokio::test]\nasync fn a() { tokio::time::sleep(D).await }").banned.len(), 1);
        assert_eq!(facts("async fn a() { tokio::time::sleep(D).await }").banned.len(), 0);
    }
}
