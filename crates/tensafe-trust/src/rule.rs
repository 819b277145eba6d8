//! The rules of a scan: the one table of ids, names, levels, and what each means.
//!
//! Ids do not change and are not used again: policies and reports of others cite them. `docs/scan.md`
//! holds this table, and a test compares them.

use std::fmt;

use crate::Level;

macro_rules! rules {
    ($($variant:ident $number:literal $name:literal $level:ident $what:literal $advice:literal;)*) => {
        /// What a finding is about. Displays as its id, `TS-101`.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[non_exhaustive]
        pub enum Rule { $(#[doc = $what] $variant,)* }

        impl Rule {
            /// Every rule, by number.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// The id, such as `TS-101`.
            #[must_use]
            pub const fn id(self) -> &'static str {
                match self { $(Self::$variant => concat!("TS-", $number),)* }
            }

            /// The name in words, such as `runs-code`.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// The level of its findings where they do not say otherwise.
            #[must_use]
            pub const fn level(self) -> Level {
                match self { $(Self::$variant => Level::$level,)* }
            }

            /// What it means, in one sentence.
            #[must_use]
            pub const fn what(self) -> &'static str {
                match self { $(Self::$variant => $what,)* }
            }

            /// What to do about it, in one sentence.
            #[must_use]
            pub const fn advice(self) -> &'static str {
                match self { $(Self::$variant => $advice,)* }
            }
        }
    };
}

rules! {
    Denied "001" "denied" Error
        "The policy of this scan denies it."
        "Ask whoever keeps the policy.";

    RunsCode "101" "runs-code" Error
        "Loading names something that runs code, starts programs, imports by name or loads native libraries."
        "Do not load the file; report it to where it came from.";
    ReachesNetwork "102" "reaches-network" Error
        "Loading names something that opens connections."
        "Do not load the file; report it to where it came from.";
    TouchesFiles "103" "touches-files" Error
        "Loading names something that reads, writes or removes files."
        "Do not load the file; report it to where it came from.";
    CallsStandardLibrary "104" "calls-standard-library" Error
        "Loading calls a part of Python's standard library that no checkpoint needs."
        "Do not load the file unless you know why it is there.";
    CallsUnknown "105" "calls-unknown" Warning
        "Loading calls a class or function that is not known to be harmless."
        "Read its code, then allow it in a policy, or convert the weights.";
    NamesUnknown "106" "names-unknown" Warning
        "Loading imports a class or function that is not known to be harmless."
        "Read its code, then allow it in a policy, or convert the weights.";
    DottedName "107" "dotted-name" Warning
        "A name walks attributes, which reaches what a module merely imports."
        "Read what the attributes lead to.";
    DeceptiveName "108" "deceptive-name" Error
        "A name is such as no Python code spells; it is there to deceive who compares names."
        "Do not load the file.";
    ComputedCall "109" "computed-call" Error
        "Loading calls what another call returned, so that the name of the called is not to be seen."
        "Do not load the file.";
    ChangesLive "110" "changes-live-object" Error
        "Loading changes a function, class or module of the running program."
        "Do not load the file.";
    ItemsOfOther "111" "items-of-other" Error
        "Loading sets items of what is no container, such as the memory of a tensor."
        "Do not load the file.";
    ExtensionRegistry "112" "extension-registry" Error
        "A number of Python's extension registry stands for a name that the file does not tell."
        "Do not load the file.";
    PersistentText "113" "persistent-text" Warning
        "A reference to something outside of the pickle is given as text, as no known writer does."
        "Find out which program wrote the file.";
    PersistentOther "114" "persistent-other" Warning
        "A reference to something outside of the pickle is no storage of torch."
        "Find out which program wrote the file.";
    Attribute "115" "attribute" Warning
        "Loading takes an attribute of what it imports."
        "Read what the attribute is.";
    PickledModule "116" "pickled-module" Warning
        "A whole module is pickled, not its weights: loading runs the code of its classes."
        "Ask for a state dict, or convert the weights.";
    ImportsByText "117" "imports-by-text" Warning
        "A text names a function that a training framework imports and calls."
        "Read the text; remove the key before the checkpoint is used.";
    LoadsFile "118" "loads-file" Warning
        "Loading reads another file, which the pickle names."
        "Scan that file too.";

    OddArguments "119" "odd-arguments" Warning
        "A known class or function gets arguments that its writer never writes."
        "Do not load the file with a program that does not check them.";

    StorageMismatch "120" "storage-mismatch" Error
        "A tensor reaches beyond its storage, or a storage is not what the pickle says of it."
        "Do not load the file with a program that does not check it.";

    AfterStop "201" "after-stop" Warning
        "Bytes follow the end of the pickle that are no pickle."
        "Find out what they are: some other program may read them.";
    SecondPickle "202" "second-pickle" Note
        "Another pickle follows the end of the first; a loader may or may not read it."
        "Nothing, if the program that loads it reads both.";
    NestedPickle "203" "nested-pickle" Note
        "A text or bytes in a pickle hold another pickle, which nothing here loads."
        "Nothing, unless a program loads it.";
    NestedPayload "204" "nested-payload" Error
        "A text or bytes in a pickle hold another pickle that would run code."
        "Do not load the file.";
    FrameBroken "205" "frame-broken" Error
        "Instructions do not keep to the frame around them, so that readers of pickles disagree."
        "Do not load the file: its writer meant to be misread.";
    OutOfBand "206" "out-of-band" Warning
        "The pickle asks for buffers that are not in it."
        "Find out which program wrote the file.";

    OddStream "207" "odd-stream" Warning
        "The pickle does what no writer of pickles does."
        "Find out which program wrote the file.";
    Exhausts "208" "exhausts" Warning
        "Loading, or walking over what was loaded, takes far more time or memory than the file's size."
        "Do not load the file without limits.";
    Opaque "209" "opaque-data" Note
        "A text or bytes are encoded in some way that was not undone."
        "Nothing, unless a program decodes and loads them.";
    SourceText "210" "source-text" Note
        "A text holds source code, which nothing here runs."
        "Nothing, unless a program runs it.";

    ArchiveFlaw "301" "archive-flaw" Warning
        "The archive has a flaw that some readers pass over and others do not."
        "Have it written anew by the library that wrote it.";
    ArchiveDeceives "302" "archive-deceives" Error
        "The archive is built so that two readers find different contents in it."
        "Do not load the file.";
    BadChecksum "303" "bad-checksum" Error
        "A member of the archive does not have the checksum that the archive says."
        "Fetch the file again.";
    Polyglot "304" "polyglot" Warning
        "The file is of two kinds at once, so that readers disagree about what it holds."
        "Do not load the file unless you know why.";
    MemberPath "305" "member-path" Error
        "The name of a member leads outside of where an archive is unpacked."
        "Do not unpack the archive.";
    TorchScript "306" "torchscript" Warning
        "The archive holds TorchScript, which is code that loading compiles and running runs."
        "Read the code, or convert the weights.";
    NativeCode "307" "native-code" Warning
        "A file, or a member of one, is a program or a library."
        "Find out where it comes from before anything loads it.";
    ObjectArray "308" "object-array" Note
        "A numpy array holds objects, which numpy loads by pickle."
        "Nothing beyond the findings of that pickle.";
    Misnamed "309" "misnamed" Error
        "The name says safetensors and the content is another format."
        "Do not load the file.";

    SafetensorsRule "401" "safetensors-rule" Error
        "A safetensors file breaks a rule of its format."
        "`tensafe verify` tells all; fetch the file again, or have it written anew.";
    SafetensorsLenient "402" "safetensors-lenient" Warning
        "A safetensors file breaks a rule of its format that the reference implementation reads past."
        "`tensafe verify` tells all; have the file written anew.";
    KerasLambda "403" "keras-lambda" Error
        "A Keras model holds a Lambda layer, which is code in the file."
        "Do not load the file, or load it with Keras' safe mode.";
    Gguf "404" "gguf" Note
        "Of a GGUF file the templates were judged; its tensors hold no code and were not looked at."
        "Nothing.";

    LoadingCode "501" "loading-code" Warning
        "Python code beside weights loads pickles, or asks a loader to run foreign code."
        "Read the code.";
    PythonCode "502" "python-code" Note
        "Python code lies beside the weights; loaders that are asked to will run it."
        "Read the code.";
    RemoteCode "503" "remote-code" Warning
        "A configuration asks loaders to run Python code that comes with the model."
        "Read the code before you let a loader trust it.";
    TemplateReaches "504" "template-reaches" Error
        "A chat template reaches for attributes that lead out of a template to Python."
        "Do not use the template.";
    PickleBeside "505" "pickle-beside-safetensors" Note
        "Pickled weights lie beside safetensors; a loader may take them."
        "Remove the pickled ones.";

    Broken "901" "broken-pickle" Inconclusive
        "The pickle breaks off, and what a loader makes of it is not known."
        "Fetch the file again; do not load it as it is.";
    LimitMet "902" "limit" Inconclusive
        "A limit of the scan was met before everything was looked at."
        "Raise the limit, or treat the file as unknown.";
    UnknownFormat "903" "unknown-format" Inconclusive
        "The content is of no format that is known here."
        "Treat the file as unknown.";
    UnreadFormat "904" "unread-format" Inconclusive
        "The content is of a format that is known and not read here."
        "Unpack or convert it, and scan what comes of it.";
    Encrypted "905" "encrypted" Inconclusive
        "A member of the archive is encrypted."
        "Treat the file as unknown.";
    BrokenArchive "906" "broken-archive" Inconclusive
        "The archive, or a part of it, could not be read."
        "Fetch the file again; do not load it as it is.";
    Pointer "907" "pointer" Inconclusive
        "The file is a pointer of Git LFS, and the weights are not there."
        "Fetch the weights and scan them.";
}

impl Rule {
    /// The rule with this id or name.
    #[must_use]
    pub fn find(text: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|rule| rule.id() == text || rule.name() == text)
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.id())
    }
}

#[cfg(test)]
mod tests {
    use super::Rule;

    #[test]
    fn ids_ascend_and_both_names_are_found() {
        for pair in Rule::ALL.windows(2) {
            assert!(pair[0].id() < pair[1].id());
        }
        for rule in Rule::ALL {
            assert_eq!((Rule::find(rule.id()), Rule::find(rule.name())), (Some(*rule), Some(*rule)));
            assert!(rule.what().ends_with('.') && rule.advice().ends_with('.'));
        }
    }
}
