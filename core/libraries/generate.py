#!/usr/bin/env python3
"""generate.py NAMES HEADER SOURCE: the table of a library's functions; see library.h."""

import os
import sys

names_path, header_path, source_path = sys.argv[1:]
name = os.path.splitext(os.path.basename(names_path))[0]
told, includes, symbols = {}, [], []
with open(names_path, encoding="utf-8") as file:
    for words in (line.split() for line in file if line.strip() and not line.startswith("#")):
        if words[0] == "include":
            includes.append(words[1])
        elif len(words) == 2:
            told[words[0]] = words[1]
        else:
            symbols.append(words[0])

with open(header_path, "w", encoding="utf-8") as header:
    header.write("#pragma once\n\n")
    header.writelines(f"#include <{include}>\n" for include in includes)
    header.write('\n#include "libraries/library.h"\n\n')
    header.writelines(f"#undef {symbol}\n" for symbol in symbols)
    header.write("\nextern struct {\n")
    header.writelines(f"        __typeof__({symbol}) *{symbol};\n" for symbol in symbols)
    header.write(f"}} {name}_functions;\n\nint {name}_load(Reason *reterr);\n\n")
    header.writelines(f"#define {symbol} (*{name}_functions.{symbol})\n" for symbol in symbols)

with open(source_path, "w", encoding="utf-8") as source:
    source.write(f'#include "libraries/{name}-functions.h"\n\n__typeof__({name}_functions) {name}_functions;\n\n')
    source.write(f"int {name}_load(Reason *reterr) {{\n        static const char *const symbols[] = {{\n")
    source.writelines(f'                "{symbol}",\n' for symbol in symbols)
    source.write("        };\n        static const Library library = {\n"
                 f'                "{told["library"]}", "{told["package"]}", symbols, {len(symbols)},'
                 f" (void **) &{name}_functions,\n        }};\n\n        return library_load(&library, reterr);\n}}\n")
