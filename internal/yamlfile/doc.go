// Package yamlfile reads YAML files that people write, node by node, so that whatever
// is wrong can be said with its line: the file is one document, every key of a mapping
// is a known one and stands once, and for an unknown key there is the nearest known
// name. What the values mean is left to the packages above.
package yamlfile
