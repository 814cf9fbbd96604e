#include "partitions/lvm-text.h"

#include <ctype.h>
#include <errno.h>
#include <stdbool.h>
#include <string.h>

#include "util/cleanup.h"
#include "util/json.h"

#define DEPTH_MAX 8
#define WORD_MAX 1024 /* bytes */

typedef struct Parser {
        const char *at, *end;
} Parser;

static void skip_space(Parser *parser) {
        for (; parser->at < parser->end; parser->at++) {
                if (*parser->at == '#')
                        while (parser->at + 1 < parser->end && parser->at[1] != '\n')
                                parser->at++;
                else if (!isspace((unsigned char) *parser->at) && *parser->at != '\0')
                        return;
        }
}

/* Takes the character if it is the next one. */
static bool take(Parser *parser, char wanted) {
        skip_space(parser);
        if (parser->at == parser->end || *parser->at != wanted)
                return false;
        parser->at++;
        return true;
}

static bool is_word(char c) {
        return isalnum((unsigned char) c) || strchr("+_.-", c);
}

static bool take_word(Parser *parser, char ret[static WORD_MAX]) {
        size_t length = 0;

        skip_space(parser);
        for (; parser->at < parser->end && *parser->at && is_word(*parser->at); parser->at++) {
                if (length + 1 == WORD_MAX)
                        return false;
                ret[length++] = *parser->at;
        }
        ret[length] = 0;
        return length > 0;
}

/* The quote is behind. */
static json_t *parse_string(Parser *parser) {
        char word[WORD_MAX];
        size_t length = 0;

        for (; parser->at < parser->end && *parser->at != '"'; parser->at++) {
                if (*parser->at == '\\' && parser->at + 1 < parser->end)
                        parser->at++;
                if (length + 1 == WORD_MAX || !*parser->at)
                        return NULL;
                word[length++] = *parser->at;
        }
        word[length] = 0;
        if (parser->at == parser->end)
                return NULL;
        parser->at++;
        return json_text(word);
}

static json_t *parse_number(Parser *parser) {
        char word[WORD_MAX], *end;
        long long number;

        if (!take_word(parser, word))
                return NULL;
        errno = 0;
        number = strtoll(word, &end, 10);
        return *end || errno ? NULL : json_integer(number);
}

static json_t *parse_scalar(Parser *parser) {
        return take(parser, '"') ? parse_string(parser) : parse_number(parser);
}

static json_t *parse_value(Parser *parser) {
        CLEANUP(json_decrefp) json_t *list = NULL;

        if (!take(parser, '['))
                return parse_scalar(parser);
        list = json_array();
        while (!take(parser, ']')) {
                if (json_array_append_new(list, parse_scalar(parser)) < 0)
                        return NULL;
                (void) take(parser, ',');
        }
        return STEAL_PTR(list);
}

/* Up to the closing brace, or the end of the text at the top. */
static json_t *parse_section(Parser *parser, unsigned depth) {
        CLEANUP(json_decrefp) json_t *section = json_object();
        char word[WORD_MAX];

        while (depth > 0 ? !take(parser, '}') : (skip_space(parser), parser->at < parser->end)) {
                json_t *value = NULL;

                if (!take_word(parser, word))
                        return NULL;
                if (take(parser, '='))
                        value = parse_value(parser);
                else if (depth < DEPTH_MAX && take(parser, '{'))
                        value = parse_section(parser, depth + 1);
                if (json_object_set_new(section, word, value) < 0)
                        return NULL;
        }
        return STEAL_PTR(section);
}

int lvm_text_parse(const char *text, size_t length, json_t **ret, Reason *reterr) {
        Parser parser = { text, text + length };
        json_t *root = parse_section(&parser, 0);

        if (!root)
                return fail(reterr, -EBADMSG, "the metadata of LVM is damaged");
        *ret = root;
        return 0;
}
