/* fs/command-line/source-words.h - the SOURCE of a command line, which may hold tickets and passwords.
 *
 * What is secret of it disappears from where `ps` shows it, and "-" reads it from standard input, where it never was to be
 * seen. */
#pragma once

#include "util/reason.h"

/* Appends a copy of the word, or of the words that standard input has, to *source, with one space between; *source is NULL
 * at first, and freed by the caller. The word is one of argv. */
int source_words_take(char *word, char **source, Reason *reterr);
