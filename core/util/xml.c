#include "util/xml.h"

#include <errno.h>
#include <libxml/parser.h>
#include <pthread.h>
#include <string.h>

static pthread_once_t parser_once = PTHREAD_ONCE_INIT;

int xml_parse(const char *text, const char *root, const char *what, xmlDoc **ret, Reason *reterr) {
        CLEANUP(xml_free_docp) xmlDoc *doc = NULL;
        size_t length = strnlen(text, XML_TEXT_LIMIT + 1);
        const xmlNode *top;
        int rc = libxml2_load(reterr);

        if (rc < 0)
                return rc;
        if (length > XML_TEXT_LIMIT)
                return fail(reterr, -EFBIG, "%s is longer than %u MiB", what, XML_TEXT_LIMIT >> 20);
        pthread_once(&parser_once, xmlInitParser);
        doc = xmlReadMemory(text, (int) length, NULL, NULL,
                            XML_PARSE_NONET | XML_PARSE_NOERROR | XML_PARSE_NOWARNING | XML_PARSE_NOBLANKS);
        if (!doc)
                return fail(reterr, -EBADMSG, "%s cannot be understood: it is not well-formed", what);
        if (doc->intSubset || doc->extSubset)
                return fail(reterr, -EBADMSG, "%s cannot be understood: it has a document type", what);
        top = xmlDocGetRootElement(doc);
        if (!top || strcmp((const char *) top->name, root) != 0)
                return fail(reterr, -EBADMSG, "%s cannot be understood: it is no <%s>", what, root);
        *ret = STEAL_PTR(doc);
        return 0;
}

static xmlNode *first_named(xmlNode *node, const char *name) {
        for (; node; node = node->next)
                if (node->type == XML_ELEMENT_NODE && strcmp((const char *) node->name, name) == 0)
                        return node;
        return NULL;
}

xmlNode *xml_child(const xmlNode *node, const char *name) {
        return node ? first_named(node->children, name) : NULL;
}

xmlNode *xml_next(const xmlNode *node) {
        return first_named(node->next, (const char *) node->name);
}

/* libxml2's memory may be another allocator's. */
static char *take_text(xmlChar *text) {
        char *copy = text ? strdup((char *) text) : NULL;

        xmlFree(text);
        return copy;
}

char *xml_attribute(const xmlNode *node, const char *name) {
        return node ? take_text(xmlGetNoNsProp(node, BAD_CAST name)) : NULL;
}

char *xml_content(const xmlNode *node) {
        return node ? take_text(xmlNodeGetContent(node)) : NULL;
}

bool xml_attribute_is(const xmlNode *node, const char *name, const char *value) {
        CLEANUP(freep) char *text = xml_attribute(node, name);

        return text && strcmp(text, value) == 0;
}

int xml_dump(xmlDoc *doc, char **ret, Reason *reterr) {
        xmlChar *text = NULL;
        int length = 0;
        char *copy;

        xmlDocDumpFormatMemoryEnc(doc, &text, &length, "UTF-8", 1);
        copy = take_text(text);
        if (!copy)
                return fail_oom(reterr);
        *ret = copy;
        return 0;
}

xmlNode *xml_add(xmlNode *parent, const char *name, const char *content, int *rc) {
        xmlNode *node = NULL;

        if (*rc < 0)
                return NULL;
        if (content && !xmlCheckUTF8(BAD_CAST content)) {
                *rc = -EINVAL;
                return NULL;
        }
        node = xmlNewTextChild(parent, NULL, BAD_CAST name, BAD_CAST content);
        if (!node)
                *rc = -ENOMEM;
        return node;
}

void xml_set(xmlNode *node, const char *name, const char *value, int *rc) {
        if (*rc < 0)
                return;
        if (!xmlCheckUTF8(BAD_CAST value))
                *rc = -EINVAL;
        else if (!xmlSetProp(node, BAD_CAST name, BAD_CAST value))
                *rc = -ENOMEM;
}

void xml_set_content(xmlNode *node, const char *content, int *rc) {
        if (*rc < 0)
                return;
        if (!xmlCheckUTF8(BAD_CAST content)) {
                *rc = -EINVAL;
                return;
        }
        xmlNodeSetContent(node, NULL);
        xmlNodeAddContent(node, BAD_CAST content);
}

void xml_unset(xmlNode *node, const char *name) {
        if (node)
                (void) xmlUnsetProp(node, BAD_CAST name);
}

void xml_remove(xmlNode *node) {
        if (!node)
                return;
        xmlUnlinkNode(node);
        xmlFreeNode(node);
}

void xml_remove_children(xmlNode *node, const char *name) {
        xmlNode *child;

        while ((child = xml_child(node, name)))
                xml_remove(child);
}
