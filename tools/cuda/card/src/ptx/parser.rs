//! A PTX text as a [`Module`].

use super::{
    Function, Instruction, Module, Operand, Space, Statement, Variable,
    lexer::{Placed, Token, tokens},
    operands::number,
};

/// What is wrong with a text, and in which line.
pub type Result<T> = std::result::Result<T, String>;

/// Directives that say nothing to an interpreter; they end with a semicolon or with their line.
const IGNORED: [&str; 12] = [
    ".pragma",
    ".loc",
    ".file",
    ".maxntid",
    ".reqntid",
    ".minnctapersm",
    ".maxnctapersm",
    ".maxnreg",
    ".noreturn",
    ".explicitcluster",
    ".reqnctapercluster",
    ".branchtargets",
];

/// A place in the tokens of a text.
pub struct Parser<'a> {
    tokens: Vec<Placed<'a>>,
    at: usize,
}

/// A module's text, read.
///
/// # Errors
/// What was not understood, with its line.
pub fn parse(text: &str) -> Result<Module> {
    let mut parser = Parser { tokens: tokens(text), at: 0 };
    let mut module = Module::default();
    while parser.at < parser.tokens.len() {
        parser.top_level(&mut module)?;
    }
    Ok(module)
}

impl<'a> Parser<'a> {
    fn line(&self) -> usize {
        self.tokens.get(self.at.min(self.tokens.len().saturating_sub(1))).map_or(0, |placed| placed.line)
    }

    pub(super) fn wrong(&self, what: &str) -> String {
        format!("line {}: {what}", self.line())
    }

    fn peek(&self) -> Option<Token<'a>> {
        self.tokens.get(self.at).map(|placed| placed.token)
    }

    pub(super) fn next(&mut self) -> Result<Placed<'a>> {
        let placed = self.tokens.get(self.at).copied().ok_or("the text ends too early")?;
        self.at += 1;
        Ok(placed)
    }

    pub(super) fn word(&mut self) -> Result<&'a str> {
        match self.next()?.token {
            Token::Word(word) => Ok(word),
            other => Err(self.wrong(&format!("{other:?} where a word should be"))),
        }
    }

    pub(super) fn takes(&mut self, mark: u8) -> bool {
        let there = self.peek() == Some(Token::Mark(mark));
        self.at += usize::from(there);
        there
    }

    pub(super) fn expect(&mut self, mark: u8) -> Result<()> {
        match self.takes(mark) {
            true => Ok(()),
            false => Err(self.wrong(&format!("{:?} where '{}' should be", self.peek(), mark as char))),
        }
    }

    /// The rest of a directive that ends with its line.
    fn skip_line(&mut self, line: usize) {
        while self.tokens.get(self.at).is_some_and(|placed| placed.line == line) {
            self.at += 1;
        }
    }

    fn top_level(&mut self, module: &mut Module) -> Result<()> {
        let line = self.line();
        match self.word()? {
            ".version" | ".address_size" | ".file" | ".loc" | ".pragma" => self.skip_line(line),
            ".target" => {
                let digits: String = self.word()?.chars().filter(char::is_ascii_digit).collect();
                module.target = digits.parse().map_err(|_| self.wrong("a target without a number"))?;
                self.skip_line(line);
            }
            ".visible" | ".extern" | ".weak" | ".common" => {}
            ".entry" => module.functions.extend(self.function(true)?),
            ".func" => module.functions.extend(self.function(false)?),
            word @ (".global" | ".const" | ".shared") => {
                let variable = self.variable(word)?;
                module.variables.push(variable);
            }
            other => return Err(self.wrong(&format!("'{other}' is not known here"))),
        }
        Ok(())
    }

    /// What stands behind `.entry` or `.func`; nothing for a declaration without a body.
    fn function(&mut self, entry: bool) -> Result<Option<Function>> {
        let results = if self.takes(b'(') { self.parameters()? } else { Vec::new() };
        let name = self.word()?.to_owned();
        let parameters = if self.takes(b'(') { self.parameters()? } else { Vec::new() };
        while let Some(Token::Word(word)) = self.peek() {
            if !IGNORED.contains(&word) {
                return Err(self.wrong(&format!("'{word}' before the body of {name}")));
            }
            self.skip_line(self.line());
        }
        if self.takes(b';') {
            return Ok(None);
        }
        self.expect(b'{')?;
        let mut body = Vec::new();
        let mut depth = 0;
        loop {
            if self.takes(b'}') {
                if depth == 0 {
                    return Ok(Some(Function { name, entry, parameters, results, body }));
                }
                depth -= 1;
                body.push(Statement::Close);
            } else if self.takes(b'{') {
                depth += 1;
                body.push(Statement::Open);
            } else {
                self.statement(&mut body)?;
            }
        }
    }

    fn parameters(&mut self) -> Result<Vec<Variable>> {
        let mut found = Vec::new();
        while !self.takes(b')') {
            let word = self.word()?;
            if word != ".param" {
                return Err(self.wrong(&format!("'{word}' where .param should be")));
            }
            found.push(self.declaration(Space::Param)?.0);
            self.takes(b',');
        }
        Ok(found)
    }

    fn statement(&mut self, body: &mut Vec<Statement>) -> Result<()> {
        if self.takes(b'@') {
            let negated = self.takes(b'!');
            let guard = (self.word()?.to_owned(), negated);
            return self.instruction(Some(guard), body);
        }
        let line = self.line();
        match self.peek() {
            Some(Token::Word(".reg")) => {
                self.at += 1;
                self.registers(body)
            }
            Some(Token::Word(word @ (".shared" | ".local" | ".param" | ".global" | ".const"))) => {
                self.at += 1;
                let variable = self.variable(word)?;
                body.push(Statement::Variable(variable));
                Ok(())
            }
            Some(Token::Word(word)) if IGNORED.contains(&word) => {
                self.skip_line(line);
                Ok(())
            }
            Some(Token::Word(word)) if !word.starts_with('.') => {
                let marks = |ahead: usize| {
                    self.tokens.get(self.at + ahead).is_some_and(|placed| placed.token == Token::Mark(b':'))
                };
                // `L2::128B` in an opcode is no label.
                if marks(1) && !marks(2) {
                    self.at += 2;
                    body.push(Statement::Label(word.to_owned()));
                    return Ok(());
                }
                self.instruction(None, body)
            }
            // An empty statement.
            Some(Token::Mark(b';')) => self.expect(b';'),
            other => Err(self.wrong(&format!("{other:?} where a statement should be"))),
        }
    }

    fn registers(&mut self, body: &mut Vec<Statement>) -> Result<()> {
        self.word()?;
        loop {
            let name = self.word()?.to_owned();
            let count = if self.takes(b'<') {
                let word = self.word()?;
                self.expect(b'>')?;
                Some(word.parse().map_err(|_| self.wrong(&format!("'{word}' registers")))?)
            } else {
                None
            };
            body.push(Statement::Registers(name, count));
            if !self.takes(b',') {
                return self.expect(b';');
            }
        }
    }

    fn instruction(&mut self, guard: Option<(String, bool)>, body: &mut Vec<Statement>) -> Result<()> {
        let line = self.line();
        let mut opcode = self.word()?.to_owned();
        // `ld.global.L1::evict_first.u32`
        while self.takes(b':') {
            self.expect(b':')?;
            opcode = format!("{opcode}::{}", self.word()?);
        }
        let mut operands = Vec::new();
        while !self.takes(b';') {
            operands.push(self.operand()?);
            self.takes(b',');
        }
        body.push(Statement::Instruction(Instruction { line, guard, opcode, operands }));
        Ok(())
    }

    /// What stands behind the word of a state space, to the semicolon.
    fn variable(&mut self, space: &str) -> Result<Variable> {
        let space = match space {
            ".shared" => Space::Shared,
            ".local" => Space::Local,
            ".param" => Space::Param,
            _ => Space::Global,
        };
        let (mut variable, element) = self.declaration(space)?;
        if self.takes(b'=') {
            let value = self.operand()?;
            variable.initial = self.initial(value, element)?;
        }
        self.expect(b';')?;
        Ok(variable)
    }

    /// `.align 4 .b8 name[16]`, and the bytes of an element.
    fn declaration(&mut self, space: Space) -> Result<(Variable, usize)> {
        let (mut align, mut element) = (0, 0);
        let name = loop {
            match self.word()? {
                ".align" => {
                    let word = self.word()?;
                    align = word.parse().map_err(|_| self.wrong(&format!("alignment '{word}'")))?;
                }
                ".ptr" | ".global" | ".shared" | ".const" | ".local" => {}
                word if word.starts_with('.') => {
                    element = type_bytes(word).ok_or_else(|| self.wrong(&format!("type '{word}' of a variable")))?;
                }
                word => break word.to_owned(),
            }
        };
        let mut bytes = element;
        while self.takes(b'[') {
            if self.takes(b']') {
                bytes = 0;
                continue;
            }
            let word = self.word()?;
            let Some(Operand::Integer(count)) = number(word) else {
                return Err(self.wrong(&format!("'{word}' elements")));
            };
            bytes *= count as usize;
            self.expect(b']')?;
        }
        Ok((Variable { name, space, align: align.max(element), bytes, initial: Vec::new() }, element))
    }

    fn initial(&self, value: Operand, element: usize) -> Result<Vec<u8>> {
        let bits = match value {
            Operand::List(parts) => {
                let parts: Result<Vec<_>> = parts.into_iter().map(|part| self.initial(part, element)).collect();
                return Ok(parts?.concat());
            }
            Operand::Integer(value) => value as u64,
            Operand::Single(bits) => bits.into(),
            Operand::Double(value) if element == 4 => (value as f32).to_bits().into(),
            Operand::Double(value) => value.to_bits(),
            other => return Err(self.wrong(&format!("{other:?} as a first value"))),
        };
        Ok(bits.to_le_bytes()[..element].to_vec())
    }
}

/// Bytes of a type: `.u64` has 8. Registers have no more, so `.b128` is not known.
pub fn type_bytes(name: &str) -> Option<usize> {
    let bits: usize = match name.trim_start_matches('.') {
        "pred" => 8,
        "f16x2" | "bf16x2" => 32,
        "bf16" => 16,
        name => name.trim_start_matches(|c: char| c.is_ascii_alphabetic()).parse().ok()?,
    };
    matches!(bits, 8 | 16 | 32 | 64).then_some(bits / 8)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "
.version 8.0
.target sm_90, debug
.address_size 64
.extern .func __assertfail ( .param .b64 a, .param .b32 b ) ;
.global .align 4 .b8 table[6] = {65, 144, 67, 60, 153, 149};
.const .align 8 .f64 two[2] = {0d4000000000000000, 1.5};
.global .align 4 .f32 single = 1.5;
.extern .shared .align 16 .b8 dynamic[];
.visible .entry twice( .param .u64 twice_param_0, .param .align 8 .b8 rest[24] )
.maxntid 256, 1, 1
{
    .reg .pred %p<3>;
    .reg .b32 %r<5>, h;
    .shared .align 4 .b8 tile[128];
    ld.param.u64 %rd1, [rest+16];
    @!%p1 bra $L_2;
    { .reg .b16 x; mov.b32 {x, %rs2}, %r1; }
    shfl.sync.bfly.b32 %r1|%p2, %r2, 16, 31, -1;
    ld.global.L2::128B.u32 %r1, [%rd1];
$L_2:
    ret;
}";

    #[test]
    fn a_module_is_read_whole() {
        let module = parse(TEXT).unwrap();
        assert_eq!(module.target, 90);
        let [table, two, single, dynamic] = &module.variables[..] else { panic!("{:?}", module.variables) };
        assert_eq!((table.bytes, &table.initial[..]), (6, &[65, 144, 67, 60, 153, 149][..]));
        assert_eq!(two.initial, [2f64.to_le_bytes(), 1.5f64.to_le_bytes()].concat());
        assert_eq!(single.initial, 1.5f32.to_le_bytes());
        assert_eq!((dynamic.bytes, dynamic.align, dynamic.space), (0, 16, Space::Shared));
        let [twice] = &module.functions[..] else { panic!("one function has a body") };
        assert!(twice.entry);
        assert_eq!(twice.parameters.iter().map(|p| p.bytes).collect::<Vec<_>>(), [8, 24]);
        let instructions: Vec<_> = twice
            .body
            .iter()
            .filter_map(|s| match s {
                Statement::Instruction(instruction) => Some(instruction),
                _ => None,
            })
            .collect();
        assert_eq!(instructions[0].operands[1], Operand::Address("rest".into(), 16));
        assert_eq!(instructions[1].guard, Some(("%p1".into(), true)));
        let name = |name: &str| Operand::Name(name.into());
        assert_eq!(instructions[2].operands[0], Operand::List(vec![name("x"), name("%rs2")]));
        assert_eq!(instructions[3].operands[0], Operand::Pair(name("%r1").into(), name("%p2").into()));
        assert_eq!(instructions[3].operands[4], Operand::Integer(-1));
        assert_eq!(instructions[4].opcode, "ld.global.L2::128B.u32");
    }

    #[test]
    fn what_is_not_understood_is_named_with_its_line() {
        let message = parse(".version 8.0\n.surface x;").unwrap_err();
        assert!(message.contains("line 2") && message.contains(".surface"), "{message}");
    }
}
