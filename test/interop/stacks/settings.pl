# The settings of docs/resource-servers.md, as settings.mjs has them for its libraries.
use strict;
use warnings;

use Crypt::JWT qw(decode_jwt);
use HTTP::Tiny;
use JSON::PP;

open my $file, '<', $ARGV[0] or die $!;
my $case = decode_json(do { local $/; <$file> });
my ($issuer, $audience) = @$case{qw(issuer audience)};
my $key_set = HTTP::Tiny->new->get($case->{plain})->{content};

sub verify {
    my ($token) = @_;
    my ($header, $claims) = decode_jwt(
        token => $token, kid_keys => $key_set, accepted_alg => ['ES256'], leeway => 5, decode_header => 1,
        verify_exp => 1, verify_nbf => 1, # there, and good
        verify_iss => sub { $_[0] eq $issuer }, verify_aud => sub { $_[0] eq $audience });
    die "no access token\n" unless ($header->{typ} // '') eq 'at+jwt';
    return $claims;
}

my %result;
for my $what (keys %{ $case->{tokens} }) {
    $result{$what} = eval { verify($case->{tokens}{$what}); 1 } ? '' : "$@";
}
print encode_json({ 'Crypt::JWT' => \%result });
