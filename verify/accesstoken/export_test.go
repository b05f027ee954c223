package accesstoken

// DecodeObject is decodeObject, for a benchmark.
func DecodeObject(data string) error {
	_, err := decodeObject(data)
	return err
}
