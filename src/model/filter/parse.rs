//! Parses filters.
//!
//! ```text
//! expression = term, ({ "AND", term } | { "OR", term });
//! term       = ("NOT" | "-"), term | "(", expression, ")" | condition;
//! condition  = headers, ":", name
//!            | headers, ".", name, ("=" | "!="), string
//!            | "hasPrefix", "(", headers, ".", name, ",", string, ")";
//! headers    = "headers" | "attributes";
//! name       = word | string;
//! ```

use std::{fmt::Display, mem};

use super::{
    error::FilterError,
    expression::{Expression, Test},
    tokens::{Token, Tokens},
};

/// How deep parentheses and negations may nest. This bounds the stack that parsing, matching and
/// dropping a filter take.
pub(super) const MAX_DEPTH: usize = 32;

type Parsed<T> = Result<T, FilterError>;

/// Parses a filter of any length.
pub(super) fn parse(source: &str) -> Parsed<Expression> {
    let mut parser = Parser { tokens: Tokens::of(source), next: Token::End, position: 0, depth: 0 };
    parser.advance()?;
    parser.expression(&Token::End)
}

struct Parser<'a> {
    tokens: Tokens<'a>,
    /// The token to parse next.
    next: Token<'a>,
    /// The position of that token.
    position: usize,
    /// How many parentheses and negations are open.
    depth: usize,
}

impl<'a> Parser<'a> {
    /// Parses an expression and the token that ends it.
    fn expression(&mut self, end: &Token<'a>) -> Parsed<Expression> {
        let first = self.term()?;
        let Token::Word(operator @ ("AND" | "OR")) = self.next else {
            self.expect(end, format_args!(r#""AND", "OR" or {end}"#))?;
            return Ok(first);
        };
        let mut terms = vec![first];
        while self.next == Token::Word(operator) {
            self.advance()?;
            terms.push(self.term()?);
        }
        let expected = format!("\"{operator}\" or {end}");
        if let Token::Word("AND" | "OR") = self.next {
            let error = self.unexpected(expected);
            return Err(error.with_advice(r#"combine "AND" and "OR" with parentheses"#));
        }
        self.expect(end, expected)?;
        Ok(if operator == "AND" { Expression::All(terms) } else { Expression::Any(terms) })
    }

    fn term(&mut self) -> Parsed<Expression> {
        match self.next {
            Token::Word("NOT") | Token::Symbol("-") => self.nested(Self::term).map(not),
            Token::Symbol("(") => self.nested(|it| it.expression(&Token::Symbol(")"))),
            Token::Word("hasPrefix") => self.prefix(),
            Token::Word("headers" | "attributes") => self.condition(),
            _ => Err(self.unexpected(r#""headers", "attributes", "hasPrefix", "NOT", "-" or "(""#)),
        }
    }

    /// Takes a parenthesis or a negation, and parses what follows, one level deeper.
    fn nested(&mut self, parse: fn(&mut Self) -> Parsed<Expression>) -> Parsed<Expression> {
        if self.depth == MAX_DEPTH {
            let expected =
                format!("at most {MAX_DEPTH} parentheses and negations within each other");
            return Err(FilterError::expected(self.position, expected, "one more"));
        }
        self.advance()?;
        self.depth += 1;
        let expression = parse(self)?;
        self.depth -= 1;
        Ok(expression)
    }

    fn condition(&mut self) -> Parsed<Expression> {
        self.advance()?;
        match self.next {
            Token::Symbol(":") => {
                self.advance()?;
                Ok(Expression::Header { name: self.name()?, test: Test::Present })
            }
            Token::Symbol(".") => {
                self.advance()?;
                let name = self.name()?;
                let Token::Symbol(operator @ ("=" | "!=")) = self.next else {
                    return Err(self.unexpected(r#""=" or "!=""#));
                };
                self.advance()?;
                let equal = Expression::Header { name, test: Test::Equals(self.string()?) };
                Ok(if operator == "=" { equal } else { not(equal) })
            }
            _ => Err(self.unexpected(r#"":" or ".""#)),
        }
    }

    fn prefix(&mut self) -> Parsed<Expression> {
        self.advance()?;
        self.symbol("(")?;
        let Token::Word("headers" | "attributes") = self.next else {
            return Err(self.unexpected(r#""headers" or "attributes""#));
        };
        self.advance()?;
        self.symbol(".")?;
        let name = self.name()?;
        self.symbol(",")?;
        let test = Test::StartsWith(self.string()?);
        self.symbol(")")?;
        Ok(Expression::Header { name, test })
    }

    fn name(&mut self) -> Parsed<String> {
        match &mut self.next {
            Token::Word(word) => {
                let name = *word;
                self.advance()?;
                if let Token::Symbol("." | "/") = self.next {
                    let error = self.unexpected("the end of the header's name");
                    return Err(error.with_advice("put a name that has this in double quotes"));
                }
                Ok(name.to_owned())
            }
            Token::Quoted(name) if !name.is_empty() => {
                let name = mem::take(name);
                self.advance()?;
                Ok(name)
            }
            _ => Err(self.unexpected("the name of a header")),
        }
    }

    fn string(&mut self) -> Parsed<String> {
        let Token::Quoted(text) = &mut self.next else {
            return Err(self.unexpected("a string in double quotes"));
        };
        let text = mem::take(text);
        self.advance()?;
        Ok(text)
    }

    fn symbol(&mut self, symbol: &'static str) -> Parsed<()> {
        let token = Token::Symbol(symbol);
        self.expect(&token, &token)
    }

    /// Takes a token that must come next. `expected` names it, and what else may come.
    fn expect(&mut self, token: &Token<'_>, expected: impl Display) -> Parsed<()> {
        if self.next == *token { self.advance() } else { Err(self.unexpected(expected)) }
    }

    fn advance(&mut self) -> Parsed<()> {
        (self.position, self.next) = self.tokens.read()?;
        Ok(())
    }

    fn unexpected(&self, expected: impl Display) -> FilterError {
        FilterError::expected(self.position, expected, &self.next)
    }
}

fn not(expression: Expression) -> Expression {
    Expression::Not(Box::new(expression))
}
